"""Grammars for completions that call tools, in llguidance's Lark, from the table of formats."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atelier.tools import Tool, ToolChoice, Tools
from worker.output.formats import ChannelCall, Format, JsonCall, MarkedCall, NamedCall, PythonCall, ReasoningMarks
from worker.output.values import referred

Spelling = Sequence[str | int]
"""A text as tokens write it: control tokens by their ids, since no text in a grammar matches them."""

STRING_LIMITS = {"minLength", "maxLength", "pattern", "format", "allOf", "oneOf", "$ref", "not"}
LIMITS = {"allOf", "anyOf", "oneOf", "$ref", "not", "if", "patternProperties", "propertyNames", "minProperties"}
PLAIN_TYPE = {"type", "title", "description"}
CLOSED = {"additionalProperties": False}


class Unwritable(Exception):
    """The schema has what the family's way of writing arguments cannot be held to."""


@dataclass(slots=True)
class _Rules:
    """A grammar's rules, while they are written."""

    spell: Callable[[str], Spelling]
    schema: Callable[[Mapping[str, Any]], str]
    lines: list[str] = field(default_factory=lambda: ["TEXT: /(?s:.*)/", r"SPACE: /[ \n]*/"])

    def add(self, body: str, attributes: str = "") -> str:
        """A new rule's name."""
        name = f"r{len(self.lines)}"
        self.lines.append(f"{name}{attributes}: {body}")
        return name

    def text(self, text: str) -> str:
        return " ".join(each for part in self.spell(text) if (each := _literal(part)))

    def json(self, schema: Mapping[str, Any]) -> str:
        return self.add(f"%json {self.schema(schema)}")

    def up_to(self, end: str) -> str:
        """Any text, up to this one and with it."""
        first, *rest = self.spell(end)
        head = f"TEXT {_literal(first)}"
        if isinstance(first, str):
            head = self.add(head, "[lazy]")
        return " ".join([head, *map(_literal, rest)])


def _literal(part: str | int) -> str:
    return f"<[{part}]>" if isinstance(part, int) else json.dumps(part, ensure_ascii=False) if part else ""


def calls_grammar(
    format: Format,
    tools: Tools,
    reasoning: ReasoningMarks | None,
    opened: str,
    spell: Callable[[str], Spelling],
    schema: Callable[[Mapping[str, Any]], str],
    answer: Mapping[str, Any] | None = None,
) -> str:
    """Calls of the tools, after reasoning if the model reasons; with AUTO, text that may go on to calls.

    `answer`: with AUTO, the schema of a JSON text that there may be in place of calls.
    `opened`: the mark that the prompt ends with. `schema`: a schema's JSON text, with llguidance's options.
    Unwritable when a tool's schema cannot be kept to in this format.
    """
    rules = _Rules(spell, schema)
    calls = _Calls(format, tools, rules)
    thought = _reasoning(format, reasoning, opened, rules)
    if tools.choice is not ToolChoice.AUTO:
        body = calls.all(format.prompted == opened != "")
    elif answer is not None:
        body = f"{rules.json(answer)} | {calls.all(format.prompted == opened != '')}"
    else:
        body = _choice(format, calls, rules)
    return "\n".join([f"start: {thought} ({body})", *rules.lines])


def _reasoning(format: Format, reasoning: ReasoningMarks | None, opened: str, rules: _Rules) -> str:
    if isinstance(format.call, ChannelCall):
        begin = rules.text("<|channel|>analysis<|message|>")
        end = rules.up_to("<|end|>")
        return f"({begin} {end} {rules.text('<|start|>assistant')})?"
    if reasoning is None:
        return ""
    rest = f"{rules.up_to(reasoning.end)} SPACE"
    return rest if opened == reasoning.start else f"({rules.text(reasoning.start)} {rest})?"


def _choice(format: Format, calls: "_Calls", rules: _Rules) -> str:
    """Text, calls, or text and then calls, which begin at the format's mark."""
    if isinstance(format.call, ChannelCall):
        final = rules.text("<|channel|>final<|message|>")
        preamble = f"{rules.text('<|channel|>commentary<|message|>')} {rules.up_to('<|end|>')}"
        return f"{final} TEXT | ({preamble} {rules.text('<|start|>assistant')})? ({calls.all(False)})"
    if not (mark := (format.begin or format.call.before).split()[:1]):
        rules.lines[0] += "\n" + r'ANSWER: /(?s:.*)/ & ~/(?s:\s*\[?\s*\{\s*"name"\s*:.*)/ & ~/(?s:\s*\[\s*\w+\(.*)/'
        return f"ANSWER | {calls.all(False)}"
    calls.leading = mark[0]
    return f"TEXT | {rules.up_to(mark[0])} {calls.all(False)}"


class _Calls:
    """`leading`: what is written before the rules begin, of the format's opening."""

    def __init__(self, format: Format, tools: Tools, rules: _Rules) -> None:
        self._format = format
        self._rules = rules
        self._tools = tools
        self.leading = ""

    def all(self, prompted: bool) -> str:
        """One or several calls with all that is written around them."""
        format, call = self._format, self._format.call
        leading = format.prompted if prompted else self.leading
        begin, before = format.begin, call.before
        if begin:
            begin = begin.removeprefix(leading)
            first = before
        else:
            first = before.removeprefix(leading)
        text = self._rules.text
        opening, closing = text(begin + "[" * format.listed), text("]" * format.listed + format.end)
        calls = self._alternatives(first)
        if format.separator is not None and not self._tools.one_at_a_time:
            another = self._alternatives(before) if first != before else calls
            calls = f"{calls} ({text(format.separator)} {another})*"
        return f"{opening} {calls} {closing}"

    def _alternatives(self, before: str) -> str:
        return self._rules.add(" | ".join(self._call(tool, before) for tool in self._tools.callable))

    def _call(self, tool: Tool, before: str) -> str:
        call, text = self._format.call, self._rules.text
        match call:
            case JsonCall():
                name = json.dumps(tool.name, ensure_ascii=False)
                head = f'{before}{{"{call.name_key}": {name}, "{call.arguments_key}": '
                return f"{text(head)} {self._object(tool)} {text('}' + call.after)}"
            case MarkedCall():
                arguments = " ".join(self._marked(call, tool))
                return f"{text(before + tool.name + call.name_after)} {arguments} {text(call.after)}"
            case PythonCall():
                return f"{text(before + tool.name + '(')} {self._keywords(tool)} {text(')' + call.after)}"
            case NamedCall():
                number = f'"functions.{tool.name}:" /[0-9]{{1,2}}/' if call.numbered else text(tool.name)
                return f"{text(before)} {number} {text(call.between)} {self._object(tool)} {text(call.after)}"
        raise AssertionError(call)

    def _object(self, tool: Tool) -> str:
        return self._rules.json(closed(tool.parameters))

    def _marked(self, call: MarkedCall, tool: Tool) -> Iterator[str]:
        for name, schema, required in properties(tool.parameters):
            before = self._rules.text(f"{call.key_before}{name}{call.key_after}")
            value = f"{before} {self._plain(schema, call.value_after)}"
            yield value if required else f"({value})?"

    def _plain(self, schema: Mapping[str, Any], end: str) -> str:
        """A value as text: a string as it is, anything else as JSON."""
        kinds = _kinds(schema)
        options = [schema["const"]] if "const" in schema else schema.get("enum")
        if options is not None and all(isinstance(option, str) for option in options):
            words = " | ".join(self._rules.text(option) for option in options)
            return f"({words}) {self._rules.text(end)}"
        if "string" not in kinds and kinds:
            return f"{self._rules.json(schema)} {self._rules.text(end)}"
        if kinds <= {"string", "null"} and kinds and not STRING_LIMITS & schema.keys() and options is None:
            return self._rules.up_to(end)
        raise Unwritable

    def _keywords(self, tool: Tool) -> str:
        """a=1, b="x": optional ones may be left out, with their commas."""
        first = rest = '""'
        for name, schema, required in reversed(properties(tool.parameters)):
            if not name.isidentifier():
                raise Unwritable
            item = f"{self._rules.text(name + '=')} {self._rules.json(schema)}"
            with_it = f"{item} {rest}"
            first = self._rules.add(with_it if required else f"{with_it} | {first}")
            rest = self._rules.add(f'", " {with_it}' if required else f'", " {with_it} | {rest}')
        return first


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """The types that a value may have; none where the schema does not simply say so."""
    options = schema.get("anyOf")
    if options is not None:
        plain = all(isinstance(option, dict) and set(option) <= PLAIN_TYPE for option in options)
        each = [_kinds(option) for option in options] if plain else []
        return set().union(*each) if all(each) else set()
    given = schema.get("type")
    return {given} if isinstance(given, str) else set(given or ())


def closed(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of the arguments, without properties that it does not name: models would make some up."""
    if not parameters.get("properties") or LIMITS & parameters.keys():
        return {"type": "object", **parameters}
    return {"type": "object", **CLOSED, **parameters}


def properties(parameters: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], bool]]:
    """Each with its schema, complete in itself, and whether it is required."""
    named, required = parameters.get("properties", {}), parameters.get("required", [])
    open_ended = parameters.get("additionalProperties", False) not in (False, True)
    if LIMITS & parameters.keys() or open_ended or not isinstance(named, dict) or set(required) - set(named):
        raise Unwritable
    definitions = {key: parameters[key] for key in ("$defs", "definitions") if key in parameters}
    if not all(isinstance(schema, dict) for schema in named.values()):
        raise Unwritable
    complete = {name: {**definitions, **_resolved(schema, parameters)} for name, schema in named.items()}
    return [(name, schema, name in required) for name, schema in complete.items()]


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """With what it refers to, if it is no more than a reference."""
    reference = schema.get("$ref")
    found = referred(reference, root) if isinstance(reference, str) else None
    return found if isinstance(found, dict) else schema
