"""Grammars for completions that call tools, in llguidance's Lark, from the table of formats."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from atelier.submission import Tool, ToolChoice, Tools
from worker.output.format_types import (
    BracedCall,
    Format,
    JsonCall,
    MarkedCall,
    NamedCall,
    NestedCall,
    PythonCall,
    ReasoningMarks,
    TypedCall,
)
from worker.output.gemma_grammar import braced_object
from worker.output.lark_rules import Rules, Spelling, Unwritable
from worker.output.minimax_grammar import nested_members
from worker.output.tool_parameters import STRING_LIMITS, by_kind, closed, kinds, properties


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
    rules = Rules(spell, schema)
    calls = _Calls(format, tools, rules)
    thought = _reasoning(format, reasoning, opened, rules)
    if tools.choice is not ToolChoice.AUTO:
        body = _unsaid(format, opened, rules) + calls.all(format.prompted == opened != "")
    elif answer is not None:
        body = f"{rules.json(answer)} | {calls.all(format.prompted == opened != '')}"
    else:
        body = _choice(format, calls, rules)
    return "\n".join([f"start: {thought} ({body})", *rules.lines])


def _reasoning(format: Format, reasoning: ReasoningMarks | None, opened: str, rules: Rules) -> str:
    if messages := format.messages:
        return f"({rules.text(messages.reasoning)} {rules.up_to(messages.end)} {rules.text(messages.next)})?"
    if reasoning is None:
        return ""
    rest = f"{rules.up_to(reasoning.end)} SPACE"
    return rest if opened == reasoning.start else f"({rules.text(reasoning.start)} {rest})?"


def _unsaid(format: Format, opened: str, rules: Rules) -> str:
    rest = format.unsaid.removeprefix(opened)
    return f"({rules.text(rest)})? " if rest else ""


def _choice(format: Format, calls: "_Calls", rules: Rules) -> str:
    """Text, calls, or text and then calls, which begin at the format's mark."""
    last = f"({rules.text(format.last)})?" if format.last else ""
    if messages := format.messages:
        preamble = f"{rules.text(messages.preamble)} {rules.up_to(messages.end)} {rules.text(messages.next)}"
        return f"{rules.text(messages.answer)} TEXT {last} | ({preamble})? ({calls.all(False)})"
    if not (mark := (format.begin or format.call.before).split()[:1]):
        rules.lines.append(r'ANSWER: /(?s:.*)/ & ~/(?s:\s*\[?\s*\{\s*"name"\s*:.*)/ & ~/(?s:\s*\[\s*\w+\(.*)/')
        return f"ANSWER | {calls.all(False)}"
    calls.leading = mark[0]
    marks = rules.tokens(format.ignored)
    return f"{marks} TEXT {last} | {marks} {rules.up_to(mark[0])} {calls.all(False)}"


class _Calls:
    """`leading`: what is written before the rules begin, of the format's opening."""

    def __init__(self, format: Format, tools: Tools, rules: Rules) -> None:
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
        if self._format.messages:
            before = self._format.messages.call.format(tool.name) + before
        match call:
            case JsonCall():
                name = json.dumps(tool.name, ensure_ascii=False)
                head = f'{before}{{"{call.name_key}": {name}, "{call.arguments_key}": '
                return f"{text(head)} {self._object(tool)} {text('}' + call.after)}"
            case MarkedCall():
                arguments = " ".join(self._marked(call, tool))
                return f"{self._head(call, before, tool)} {arguments} {text(call.after)}"
            case PythonCall():
                return f"{text(before + tool.name + '(')} {self._keywords(tool)} {text(')' + call.after)}"
            case BracedCall():
                arguments = braced_object(self._rules, call.quote, tool.parameters)
                return f"{text(before + tool.name)} {arguments} {text(call.after)}"
            case NestedCall():
                arguments = nested_members(self._rules, call.mark, tool.parameters)
                return f"{text(before + tool.name + call.name_after)} {arguments} {text(call.after)}"
            case NamedCall():
                id = f"/[a-z0-9]{{10}}/ {text(call.id_after)}" if call.id_after else ""
                number = f'"functions.{tool.name}:" /[0-9]{{1,2}}/' if call.numbered else text(tool.name)
                return f"{text(before)} {id} {number} {text(call.between)} {self._object(tool)} {text(call.after)}"
        raise AssertionError(call)

    def _object(self, tool: Tool) -> str:
        return self._rules.json(closed(tool.parameters))

    def _marked(self, call: MarkedCall, tool: Tool) -> Iterator[str]:
        for name, schema, required in properties(tool.parameters):
            if isinstance(call, TypedCall):
                value = self._typed(call, name, schema)
            else:
                before = self._rules.text(f"{call.key_before}{name}{call.key_after}")
                value = f"{before} {self._plain(schema, call.value_after, call.raw)}"
            yield value if required else f"({value})?"

    def _typed(self, call: TypedCall, name: str, schema: Mapping[str, Any]) -> str:
        """One alternative for each type that the value may have."""
        names, alternatives = dict(call.types), []
        for kind, each in by_kind(schema):
            before = f"{call.key_before}{name}{call.type_before}{names[kind]}{call.key_after}"
            alternatives.append(f"{self._rules.text(before)} {self._plain(each, call.value_after)}")
        return self._rules.add(" | ".join(alternatives))

    def _head(self, call: MarkedCall, before: str, tool: Tool) -> str:
        text = self._rules.text
        if not call.number_before:
            return text(before + tool.name + call.name_after)
        return f"{text(before + tool.name + call.number_before)} /[0-9]{{1,2}}/ {text(call.name_after)}"

    def _plain(self, schema: Mapping[str, Any], end: str, raw: tuple[str, str] = ("", "")) -> str:
        """A value as text: a string as it is, anything else as JSON. `raw`: marks that may be around a string."""
        given = kinds(schema)
        options = [schema["const"]] if "const" in schema else schema.get("enum")
        if options is not None and all(isinstance(option, str) for option in options):
            words = " | ".join(self._rules.text(option) for option in options)
            return f"({words}) {self._rules.text(end)}"
        if "string" not in given and given:
            return f"{self._rules.json(schema)} {self._rules.text(end)}"
        if given <= {"string", "null"} and given and not STRING_LIMITS & schema.keys() and options is None:
            return self._raw(end, *raw) if any(raw) else self._rules.up_to(end)
        raise Unwritable

    def _raw(self, end: str, opening: str, closing: str) -> str:
        """Between the marks, or without them where it does not begin as they do."""
        marked = f"{self._rules.text(opening)} {self._rules.up_to(closing)} {self._rules.text(end)}"
        bare = f"/[^{opening[0]}]/ {self._rules.up_to(end)}"
        return f"({marked} | {bare} | {self._rules.text(end)})"

    def _keywords(self, tool: Tool) -> str:
        """a=1, b="x": optional ones may be left out, with their commas."""
        items = []
        for name, schema, required in properties(tool.parameters):
            if not name.isidentifier():
                raise Unwritable
            items.append((f"{self._rules.text(name + '=')} {self._rules.json(schema)}", required))
        return self._rules.members(items, ", ")
