"""Reads tool calls in the form that the family table gives for the model's family."""

import json
import re
from collections.abc import Callable, Iterable
from functools import partial

from atelier.generation_types import ToolCallPiece
from atelier.submission import Tools
from worker.output.braced_arguments import at_end, read_key, read_value
from worker.output.family_format import (
    BracedCall,
    FamilyFormat,
    JsonCall,
    NamedCall,
    NestedCall,
    PythonCall,
    TaggedCall,
)
from worker.output.json_text import JsonText
from worker.output.parameter_schema import Schema
from worker.output.python_calls import read_call
from worker.output.tagged_arguments import read_nested, read_tagged
from worker.output.text_source import LONGEST_NAME, CompletionSource, Malformed, Reading

NAME_KEYS = ("name", "tool_name")
ARGUMENT_KEYS = ("arguments", "parameters", "args")
OTHER_KEYS = ("type", "id", "tool_call_id")
NUMBERED = re.compile(r"(?:functions\.)?(?P<name>.+?):(?P<number>\d+)")
SEPARATORS = (",", ";")


class ToolCallReader:
    """Reads and numbers the calls of one completion.

    Raises Malformed where the text is no call after all. What is not committed by then is text of the answer.
    """

    def __init__(self, source: CompletionSource, format: FamilyFormat, tools: Tools, new_id: Callable[[], str]) -> None:
        self._source = source
        self._format = format
        self._parameters: dict[str, Schema] = {tool.name: tool.parameters for tool in tools.callable}
        self._new_id = new_id
        self._strict = False  # the text may be something else, such as an answer in JSON: only known tools are called
        self.begun = self.finished = 0  # calls

    def read_section(self, mark: str) -> Reading[None]:
        """The calls after the mark that begins them and was read; "" for calls without one."""
        format, source = self._format, self._source
        ends = dict(format.other_marks)
        self._strict = not mark or mark.startswith("```")
        if mark and mark not in ends:
            yield from source.expect_all((format.begin or format.call.before).split()[1:])
        opened = bool(mark) and (mark in ends or not format.begin)
        yield from source.skip_space()
        bracket = yield from self._read_bracket(mark)
        yield from self._read_calls(opened=opened, bracket=bracket)
        yield from self._skip_marks(ends.get(mark, format.end).split())

    def read_message(self, tool: str) -> Reading[None]:
        """The call in a message whose header names this tool."""
        if isinstance(self._format.call, NamedCall):
            yield from self._stream_json(tool)
            self.finished = self.begun
            return
        mark = self._format.call.before.split()[0]
        yield from self._source.expect(mark)
        yield from self.read_section(mark)

    def _read_bracket(self, mark: str) -> Reading[str]:
        if not isinstance(self._format.call, JsonCall | PythonCall) and not self._format.listed:
            return ""
        bracket = yield from self._source.take("[")
        if not mark and not bracket and isinstance(self._format.call, PythonCall):
            raise Malformed
        return bracket

    def _read_calls(self, *, opened: bool, bracket: str) -> Reading[None]:
        """`opened`: the text before the first call was read."""
        source, form = self._source, self._format.call
        while True:
            if not opened:
                yield from source.expect_all(form.before.split())
            opened = False
            yield from source.skip_space()
            yield from self._read_call()
            self.finished = self.begun
            closed = yield from self._skip_marks(form.after.split())
            if bracket and (yield from source.take("]")):
                return
            if (closed and not self._format.begin) or not (yield from self._another_follows()):
                return

    def _another_follows(self) -> Reading[bool]:
        """Whether another call begins here, and skip the separator before it."""
        source = self._source
        start = source.at
        yield from source.take(*SEPARATORS)
        yield from source.skip_space()
        here = source.at
        if (yield from self._begins_call()):
            source.at = here
            return True
        source.at = start
        return False

    def _begins_call(self) -> Reading[bool]:
        source, form = self._source, self._format.call
        if isinstance(form, JsonCall | PythonCall):
            char = source.text[source.at : source.at + 1]
            return char == "{" if isinstance(form, JsonCall) else char.isidentifier()
        return bool(self._format.begin and (yield from source.take(form.before.split()[0])))

    def _skip_marks(self, marks: Iterable[str]) -> Reading[bool]:
        """Skip those of the marks that are there, and white space; whether there were any."""
        found = False
        yield from self._source.skip_space()
        for mark in marks:
            found = bool((yield from self._source.take(mark))) or found
            yield from self._source.skip_space()
        self._source.commit()
        return found

    def _read_call(self) -> Reading[None]:
        match self._format.call:
            case JsonCall():
                yield from self._read_json_call()
            case PythonCall():
                name, arguments = yield from read_call(self._source)
                yield from self._emit_call(self._known(name), arguments)
            case TaggedCall() as form:
                yield from self._read_tagged_call(form)
            case NamedCall() as form:
                yield from self._read_named_call(form)
            case BracedCall(quote=quote):
                yield from self._read_braced_call(quote)
            case NestedCall() as form:
                yield from self._read_nested_call(form)

    def _read_json_call(self) -> Reading[None]:
        """By any of the usual keys. Arguments before the name are held back until it is known."""
        source = self._source
        name, held, emitted = "", "{}", False
        yield from source.expect("{")
        yield from source.skip_space()
        closing = yield from source.take("}")
        while not closing:
            key = yield from self._read_json_key()
            if key in NAME_KEYS or (key == "function" and (yield from source.peek()) == '"'):
                name = self._known((yield from self._read_json_string()))
            elif key in ARGUMENT_KEYS and name and not emitted:
                yield from self._stream_json(name)
                emitted = True
            elif key in ARGUMENT_KEYS and not self._strict:
                held = _as_object((yield from source.json()))
            elif key == "function":
                yield from self._read_json_call()
                emitted = True
            elif self._strict and key not in OTHER_KEYS:
                raise Malformed
            else:
                yield from source.json()
            yield from source.skip_space()
            closing = yield from source.take("}")
            if not closing:
                yield from source.expect(",")
                yield from source.skip_space()
        if not emitted:
            yield from self._emit_call(name, held)

    def _read_json_key(self) -> Reading[str]:
        key = yield from self._read_json_string()
        yield from self._source.skip_space()
        yield from self._source.expect(":")
        yield from self._source.skip_space()
        return key

    def _read_json_string(self) -> Reading[str]:
        if (yield from self._source.peek()) != '"':
            raise Malformed
        return str(json.loads((yield from self._source.json(LONGEST_NAME))))

    def _read_named_call(self, form: NamedCall) -> Reading[None]:
        source = self._source
        id = (yield from source.until(form.id_after, LONGEST_NAME)).strip() if form.id_after else ""
        name = yield from source.name()
        if form.numbered and (numbered := NUMBERED.fullmatch(name)):
            name = numbered["name"]
            id = f"functions.{name}:{numbered['number']}"
        yield from source.skip_space()
        if form.between == "[ARGS]" and (yield from source.take("[CALL_ID]")):  # Mistral's, since 2025
            yield from source.name()
        yield from source.expect_all(form.between.split())
        yield from source.skip_space()
        yield from self._stream_json(name, id)

    def _read_tagged_call(self, form: TaggedCall) -> Reading[None]:
        name = yield from self._source.name()
        if form.number_before:
            yield from self._source.until(form.name_after, LONGEST_NAME)
        else:
            yield from self._source.expect_all(form.name_after.split())
        read = partial(read_tagged, self._source, form, self._schema(name))
        yield from self._read_arguments(name, form.key_before.split(), form.after.split()[0], read)

    def _read_nested_call(self, form: NestedCall) -> Reading[None]:
        name = yield from self._source.name()
        yield from self._source.expect_all(form.name_after.split())
        read = partial(read_nested, self._source, form, self._schema(name))
        yield from self._read_arguments(name, [f"{form.mark}<"], form.after.split()[0], read)

    def _read_arguments(
        self, name: str, opening: list[str], end: str, read: Callable[[], Reading[tuple[str, str]]]
    ) -> Reading[None]:
        """The rest of a call up to its end. Emits each argument when it is whole. `opening`: the marks before each."""
        source, keys = self._source, set[str]()
        more = yield from self._argument_follows(opening[0], end)
        yield self._begin(name)
        source.commit()
        while more:
            yield from source.expect_all(opening[1:])
            yield self._argument(*(yield from read()), keys)
            source.commit()
            more = yield from self._argument_follows(opening[0], end)
        yield self._end(keys)

    def _argument_follows(self, opening: str, end: str) -> Reading[bool]:
        """Whether the text continues with an argument, whose first mark is skipped, or with the call's end."""
        yield from self._source.skip_space()
        found = yield from self._source.take_one(opening, end)
        if found == end:
            self._source.at -= len(end)
        return found == opening

    def _read_braced_call(self, quote: str) -> Reading[None]:
        source, keys = self._source, set[str]()
        name = yield from source.name()
        yield from source.skip_space()
        yield from source.expect("{")
        yield self._begin(name)
        source.commit()
        while not (yield from at_end(source, "}", first=not keys)):
            key = yield from read_key(source, quote)
            yield self._argument(json.loads(key), (yield from read_value(source, quote)), keys)
            source.commit()
        yield self._end(keys)

    def _stream_json(self, name: str, id: str = "") -> Reading[None]:
        """A call whose arguments follow as JSON. Emits them as they arrive."""
        source = self._source
        if (yield from source.peek()) != "{":
            yield from self._emit_call(name, _as_object((yield from source.json())), id)
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

    def _emit_call(self, name: str, arguments: str, id: str = "") -> Reading[None]:
        yield self._begin(name, id)
        self._source.commit()
        yield ToolCallPiece(self.begun - 1, arguments=arguments)

    def _begin(self, name: str, id: str = "") -> ToolCallPiece:
        if not name:
            raise Malformed
        self.begun += 1
        return ToolCallPiece(self.begun - 1, id or self._new_id(), name)

    def _argument(self, key: str, value: str, keys: set[str]) -> ToolCallPiece:
        """An argument as a piece of the JSON object. `keys`: of those before. Raises Malformed on a repeated key."""
        if key in keys:
            raise Malformed
        opening = ", " if keys else "{"
        keys.add(key)
        return ToolCallPiece(self.begun - 1, arguments=f"{opening}{json.dumps(key, ensure_ascii=False)}: {value}")

    def _end(self, keys: set[str]) -> ToolCallPiece:
        return ToolCallPiece(self.begun - 1, arguments="}" if keys else "{}")

    def _known(self, name: str) -> str:
        """The name. Raises Malformed if the text is a call only with the name of a tool, and this is none."""
        if self._strict and name not in self._parameters:
            raise Malformed
        return name

    def _schema(self, tool: str) -> Schema:
        return self._parameters.get(tool, {})


def _as_object(text: str) -> str:
    """Arguments that are written as a string of JSON, or as null. Raises Malformed if they are no object."""
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
