"""Reads tool calls, each family's by its row in the table of formats."""

import json
import re
from collections.abc import Callable

from atelier.tools import ToolCallPiece, Tools
from worker.output.braced_values import ended, read_key, read_value
from worker.output.forms import BracedCall, Format, JsonCall, MarkedCall, NamedCall, NestedCall, PythonCall, TypedCall
from worker.output.json_text import JsonText
from worker.output.nested_values import read_element, read_tag
from worker.output.python_calls import read_call
from worker.output.source import LONGEST_NAME, Malformed, Reading, Source
from worker.output.values import member_schema, typed_json

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
            yield from self._expect((format.begin or format.call.before).split()[1:])
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
                yield from self._expect(call.before.split())
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

    def _expect(self, marks: list[str]) -> Reading[None]:
        for mark in marks:
            yield from self._source.space()
            yield from self._source.expect(mark)

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
        yield from self._expect(marks.between.split())
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
            yield from self._expect(marks.name_after.split())
        yield from source.space()
        key, end = marks.key_before.split(), marks.after.split()[0]
        begun = yield from source.starts(key[0], end)
        if not begun:
            raise Malformed
        yield self._begin(name)
        source.commit()
        names: set[str] = set()
        while begun == key[0]:
            yield from self._expect(key[1:])
            yield self._member(*(yield from self._argument(name, marks)), names)
            source.commit()
            yield from source.space()
            begun = yield from source.starts(key[0], end)
        if not begun:
            raise Malformed
        source.at -= len(begun)
        yield ToolCallPiece(self.begun - 1, arguments="}" if names else "{}")

    def _argument(self, tool: str, marks: MarkedCall) -> Reading[tuple[str, str]]:
        """A parameter and its value as JSON text."""
        source = self._source
        if isinstance(marks, TypedCall):
            name, is_string = yield from self._typed_key(marks)
        else:
            first, *between = marks.key_after.split()
            name, is_string = (yield from source.until(first, LONGEST_NAME)), None
            yield from self._expect(between)
        opening, closing = marks.raw
        if opening and (yield from source.starts(opening)):
            value = yield from source.until(closing)
            yield from source.space()
            yield from source.expect(marks.value_after.split()[0])
        else:
            value = yield from source.until(marks.value_after.split()[0])
        if marks.value_after.startswith("\n"):
            value = value.removeprefix("\n").removesuffix("\n")
        return name, typed_json(value, name, self._schema(tool), is_string)

    def _typed_key(self, marks: TypedCall) -> Reading[tuple[str, bool | None]]:
        """The parameter's name, and whether its value is said to be a string."""
        source, quote = self._source, marks.type_before.split()[0]
        name = yield from source.until(quote, LONGEST_NAME)
        source.at -= len(quote)
        said = (yield from source.until(marks.key_after, LONGEST_NAME)).split("=")[-1].strip(quote)
        return name, said == dict(marks.types)["string"] if said else None

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

    def _nested_call(self, marks: NestedCall) -> Reading[None]:
        source, opening, end = self._source, f"{marks.mark}<", marks.after.split()[0]
        name = yield from source.name()
        yield from self._expect(marks.name_after.split())
        yield from source.space()
        begun = yield from source.starts(opening, end)
        if not begun:
            raise Malformed
        yield self._begin(name)
        source.commit()
        keys: set[str] = set()
        root = self._schema(name)
        while begun == opening:
            key = yield from read_tag(source)
            value = yield from read_element(source, marks.mark, key, member_schema(root, key, root), root)
            yield self._member(key, value, keys)
            source.commit()
            yield from source.space()
            begun = yield from source.starts(opening, end)
        if not begun:
            raise Malformed
        source.at -= len(begun)
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
