"""Reads tool calls, each family's by its row in the table of formats."""

import json
import re
from collections.abc import Callable
from functools import partial

from atelier.submission import ToolCallPiece, Tools
from worker.output.format_types import BracedCall, Format, JsonCall, MarkedCall, NamedCall, NestedCall, PythonCall
from worker.output.gemma_values import ended, read_key, read_value
from worker.output.json_text import JsonText
from worker.output.minimax_values import read_tagged
from worker.output.python_calls import read_call
from worker.output.tagged_values import read_argument
from worker.output.text_source import LONGEST_NAME, Malformed, Reading, Source

NAME_KEYS = ("name", "tool_name")
ARGUMENT_KEYS = ("arguments", "parameters", "args")
OTHER_KEYS = ("type", "id", "tool_call_id")
NUMBERED = re.compile(r"(?:functions\.)?(?P<name>.+?):(?P<number>\d+)")
SEPARATORS = (",", ";")


class CallReader:
    """Numbers the calls of one completion. What a reader has not committed when it raises Malformed is text."""

    def __init__(self, source: Source, format: Format, tools: Tools, new_id: Callable[[], str]) -> None:
        self._source = source
        self._format = format
        self._parameters = {tool.name: tool.parameters for tool in tools.callable}
        self._new_id = new_id
        self._strict = False  # what is read may be no call: a JSON answer, say
        self.begun = self.finished = 0  # calls

    def section(self, mark: str) -> Reading[None]:
        """The calls after a mark that begins them, which was read; "" where there is none."""
        format, source = self._format, self._source
        ends = dict(format.also)
        self._strict = not mark or mark.startswith("```")
        if mark and mark not in ends:
            yield from self._source.expect_all((format.begin or format.call.before).split()[1:])
        opened = bool(mark) and (mark in ends or not format.begin)
        yield from source.space()
        bracket = yield from self._bracket(mark)
        yield from self._calls(opened=opened, bracket=bracket)
        yield from self._close(ends.get(mark, format.end).split())

    def message(self, recipient: str) -> Reading[None]:
        """The call that is a message to this tool."""
        if isinstance(self._format.call, NamedCall):
            yield from self.stream(recipient)
            self.finished = self.begun
            return
        mark = self._format.call.before.split()[0]
        yield from self._source.expect(mark)
        yield from self.section(mark)

    def _bracket(self, mark: str) -> Reading[str]:
        if not isinstance(self._format.call, JsonCall | PythonCall) and not self._format.listed:
            return ""
        bracket = yield from self._source.starts("[")
        if not mark and not bracket and isinstance(self._format.call, PythonCall):
            raise Malformed
        return bracket

    def _calls(self, *, opened: bool, bracket: str) -> Reading[None]:
        """`opened`: what stands before the first call was read."""
        source, call = self._source, self._format.call
        while True:
            if not opened:
                yield from self._source.expect_all(call.before.split())
            opened = False
            yield from source.space()
            yield from self._call()
            self.finished = self.begun
            closed = yield from self._close(call.after.split())
            if bracket and (yield from source.starts("]")):
                return
            if (closed and not self._format.begin) or not (yield from self._another()):
                return

    def _another(self) -> Reading[bool]:
        """Whether one more call follows here; separators before it are passed over."""
        source = self._source
        start = source.at
        yield from source.starts(*SEPARATORS)
        yield from source.space()
        here = source.at
        if (yield from self._begins_call()):
            source.at = here
            return True
        source.at = start
        return False

    def _begins_call(self) -> Reading[bool]:
        source, call = self._source, self._format.call
        if isinstance(call, JsonCall | PythonCall):
            char = source.text[source.at : source.at + 1]
            return char == "{" if isinstance(call, JsonCall) else char.isidentifier()
        return bool(self._format.begin and (yield from source.starts(call.before.split()[0])))

    def _close(self, marks: list[str]) -> Reading[bool]:
        """Pass over white space and the marks, as far as they are there."""
        found = False
        yield from self._source.space()
        for mark in marks:
            found = bool((yield from self._source.starts(mark))) or found
            yield from self._source.space()
        self._source.commit()
        return found

    def _call(self) -> Reading[None]:
        match self._format.call:
            case JsonCall():
                yield from self._json_call()
            case PythonCall():
                name, arguments = yield from read_call(self._source)
                yield from self._tell(self._known(name), arguments)
            case MarkedCall() as marks:
                yield from self._marked_call(marks)
            case NamedCall() as marks:
                yield from self._named_call(marks)
            case BracedCall(quote=quote):
                yield from self._braced_call(quote)
            case NestedCall() as marks:
                yield from self._nested_call(marks)

    def _json_call(self) -> Reading[None]:
        source = self._source
        name, held, told = "", "{}", False
        yield from source.expect("{")
        yield from source.space()
        closing = yield from source.starts("}")
        while not closing:
            key = yield from self._key()
            if key in NAME_KEYS or (key == "function" and (yield from source.peek()) == '"'):
                name = self._known((yield from self._string()))
            elif key in ARGUMENT_KEYS and name and not told:
                yield from self.stream(name)
                told = True
            elif key in ARGUMENT_KEYS and not self._strict:
                held = _as_object((yield from source.json()))
            elif key == "function":
                yield from self._json_call()
                told = True
            elif self._strict and key not in OTHER_KEYS:
                raise Malformed
            else:
                yield from source.json()
            yield from source.space()
            closing = yield from source.starts("}")
            if not closing:
                yield from source.expect(",")
                yield from source.space()
        if not told:
            yield from self._tell(name, held)

    def _key(self) -> Reading[str]:
        key = yield from self._string()
        yield from self._source.space()
        yield from self._source.expect(":")
        yield from self._source.space()
        return key

    def _string(self) -> Reading[str]:
        if (yield from self._source.peek()) != '"':
            raise Malformed
        return str(json.loads((yield from self._source.json(LONGEST_NAME))))

    def _named_call(self, marks: NamedCall) -> Reading[None]:
        source = self._source
        id = (yield from source.until(marks.id_after, LONGEST_NAME)).strip() if marks.id_after else ""
        written = yield from source.name()
        numbered = NUMBERED.fullmatch(written) if marks.numbered else None
        yield from source.space()
        if marks.between == "[ARGS]" and (yield from source.starts("[CALL_ID]")):  # Mistral's, from 2025 on
            yield from source.name()
        yield from self._source.expect_all(marks.between.split())
        yield from source.space()
        if numbered:
            yield from self.stream(numbered["name"], f"functions.{numbered['name']}:{numbered['number']}")
        else:
            yield from self.stream(written, id)

    def _marked_call(self, marks: MarkedCall) -> Reading[None]:
        source = self._source
        name = yield from source.name()
        if marks.number_before:
            yield from source.until(marks.name_after, LONGEST_NAME)
        else:
            yield from source.expect_all(marks.name_after.split())
        schema = self._schema(name)
        read = partial(read_argument, source, marks, schema)
        yield from self._arguments(name, marks.key_before.split(), marks.after.split()[0], read)

    def _nested_call(self, marks: NestedCall) -> Reading[None]:
        name = yield from self._source.name()
        yield from self._source.expect_all(marks.name_after.split())
        read = partial(read_tagged, self._source, marks.mark, self._schema(name))
        yield from self._arguments(name, [f"{marks.mark}<"], marks.after.split()[0], read)

    def _arguments(
        self, name: str, opening: list[str], end: str, read: Callable[[], Reading[tuple[str, str]]]
    ) -> Reading[None]:
        """The rest of a call up to its end: arguments, each told when it is whole. `opening`: marks before each."""
        source, first, keys = self._source, opening[0], set[str]()
        yield from source.space()
        begun = yield from source.starts(first, end)
        if not begun:
            raise Malformed
        yield self._begin(name)
        source.commit()
        while begun == first:
            yield from source.expect_all(opening[1:])
            yield self._member(*(yield from read()), keys)
            source.commit()
            yield from source.space()
            begun = yield from source.starts(first, end)
        if not begun:
            raise Malformed
        source.at -= len(begun)
        yield ToolCallPiece(self.begun - 1, arguments="}" if keys else "{}")

    def _braced_call(self, quote: str) -> Reading[None]:
        source = self._source
        name = yield from source.name()
        yield from source.space()
        yield from source.expect("{")
        yield self._begin(name)
        source.commit()
        keys: set[str] = set()
        while not (yield from ended(source, "}", first=not keys)):
            key = yield from read_key(source, quote)
            yield self._member(json.loads(key), (yield from read_value(source, quote)), keys)
            source.commit()
        yield ToolCallPiece(self.begun - 1, arguments="}" if keys else "{}")

    def _member(self, key: str, value: str, before: set[str]) -> ToolCallPiece:
        """An argument as a piece of JSON; Malformed if it was there before. `value`: JSON text."""
        if key in before:
            raise Malformed
        opening = ", " if before else "{"
        before.add(key)
        return ToolCallPiece(self.begun - 1, arguments=f"{opening}{json.dumps(key, ensure_ascii=False)}: {value}")

    def stream(self, name: str, id: str = "") -> Reading[None]:
        """A call whose arguments come now, as JSON. They are told as they come."""
        source = self._source
        if (yield from source.peek()) != "{":
            yield from self._tell(name, _as_object((yield from source.json())), id)
            return
        yield self._begin(name, id)
        value = JsonText()
        while True:
            piece, source.at = value.take(source.text, source.at)
            source.commit()
            if piece:
                yield ToolCallPiece(self.begun - 1, arguments=piece)
            if value.broken:
                raise Malformed
            if value.complete:
                return
            yield from source.more()

    def _tell(self, name: str, arguments: str, id: str = "") -> Reading[None]:
        yield self._begin(name, id)
        self._source.commit()
        yield ToolCallPiece(self.begun - 1, arguments=arguments)

    def _begin(self, name: str, id: str = "") -> ToolCallPiece:
        if not name:
            raise Malformed
        self.begun += 1
        return ToolCallPiece(self.begun - 1, id or self._new_id(), name)

    def _known(self, name: str) -> str:
        """The name, unless what is read is a call only if it is a tool's."""
        if self._strict and name not in self._parameters:
            raise Malformed
        return name

    def _schema(self, tool: str) -> "dict[str, object]":
        return dict(self._parameters.get(tool, {}))


def _as_object(text: str) -> str:
    """Arguments that are no object: one within a string, or none."""
    value = json.loads(text)
    if value is None:
        return "{}"
    if isinstance(value, str):
        text, value = value, _parsed(value)
    if not isinstance(value, dict):
        raise Malformed
    return text


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
