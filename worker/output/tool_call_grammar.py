"""Grammars for completions that call tools, in llguidance's Lark dialect, from the family table."""

import json
from collections.abc import Callable, Iterator

from atelier.submission import Tool, ToolChoice, Tools
from worker.output.argument_grammar import braced_object, nested_elements
from worker.output.completion_parts import AnswerText, PartType, Reasoning
from worker.output.family_format import (
    BracedCall,
    FamilyFormat,
    JsonCall,
    NamedCall,
    NestedCall,
    PythonCall,
    ReasoningMarks,
    TaggedCall,
    TypedCall,
)
from worker.output.lark_rules import Rules, Spelling
from worker.output.parameter_schema import (
    STRING_LIMITS,
    Schema,
    UnsupportedSchema,
    closed,
    declared_types,
    properties,
    schemas_by_type,
)


def calls_grammar(
    format: FamilyFormat,
    tools: Tools,
    reasoning: ReasoningMarks | None,
    opened: str,
    spell: Callable[[str], Spelling],
    schema: Callable[[Schema], str],
    answer: Schema | None = None,
    continued: PartType | None = None,
) -> str:
    """Reasoning if the model reasons, then calls of the tools; with ToolChoice.AUTO, text or text and calls.

    `opened`: the mark that the prompt ends with. `schema`: writes a schema as JSON text with llguidance's options.
    `answer`: with AUTO, the schema of JSON that may be written in place of calls. `continued`: the part within which
    the prompt ends.
    Raises UnsupportedSchema when this format cannot guarantee what a tool's schema demands.
    """
    rules = Rules(spell, schema)
    calls = _Calls(format, tools, rules)
    prompted = format.prompt_end == opened != ""
    thought = _reasoning(format, reasoning, opened, continued, rules)
    if tools.choice is not ToolChoice.AUTO:
        body = _empty_text(format, opened, rules) + calls.all(format.prompt_end if prompted else "")
    elif answer is not None:
        body = f"{rules.json(answer)} | {calls.all(format.prompt_end if prompted else '')}"
    elif continued is AnswerText and (format.messages or (format.bare and not format.bare_anywhere)):
        body = "TEXT"  # calls are messages of their own there, or the whole answer
    else:
        body = _text_or_calls(format, calls, rules)
    return "\n".join([f"start: {thought} ({body})", *rules.lines])


def _reasoning(
    format: FamilyFormat, reasoning: ReasoningMarks | None, opened: str, continued: PartType | None, rules: Rules
) -> str:
    if continued is AnswerText:
        return ""
    if messages := format.messages:
        start, rest = messages.reasoning, f"{rules.up_to(messages.end)} {rules.text(messages.next_start)}"
    elif reasoning is None:
        return ""
    else:
        start, rest = reasoning.start, f"{rules.up_to(reasoning.end)} SPACE"
    is_open = continued is Reasoning or opened == start
    return rest if is_open else f"({rules.text(start)} {rest})?"


def _empty_text(format: FamilyFormat, opened: str, rules: Rules) -> str:
    rest = format.empty_text.removeprefix(opened)
    return f"({rules.text(rest)})? " if rest else ""


def _text_or_calls(format: FamilyFormat, calls: "_Calls", rules: Rules) -> str:
    """Text, calls, or text and then calls, which begin at the format's mark."""
    last = f"({rules.text(format.end_of_turn)})?" if format.end_of_turn else ""
    if messages := format.messages:
        preamble = f"{rules.text(messages.preamble)} {rules.up_to(messages.end)} {rules.text(messages.next_start)}"
        return f"{rules.text(messages.answer)} TEXT {last} | ({preamble})? ({calls.all()})"
    if not (mark := (format.begin or format.call.before).split()[:1]):
        rules.lines.append(r'ANSWER: /(?s:.*)/ & ~/(?s:\s*\[?\s*\{\s*"name"\s*:.*)/ & ~/(?s:\s*\[\s*\w+\(.*)/')
        return f"ANSWER | {calls.all()}"
    marks = rules.tokens(format.ignored)
    return f"{marks} TEXT {last} | {marks} {rules.up_to(mark[0])} {calls.all(mark[0])}"


class _Calls:
    """The calls of one completion."""

    def __init__(self, format: FamilyFormat, tools: Tools, rules: Rules) -> None:
        self._format = format
        self._rules = rules
        self._tools = tools

    def all(self, written: str = "") -> str:
        """One call or several, with the texts around them. `written`: their beginning, which is already there."""
        format, before = self._format, self._format.call.before
        begin = format.begin.removeprefix(written)
        first = before if format.begin else before.removeprefix(written)
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
        form, text = self._format.call, self._rules.text
        if self._format.messages:
            before = self._format.messages.call.format(tool.name) + before
        match form:
            case JsonCall():
                name = json.dumps(tool.name, ensure_ascii=False)
                head = f'{before}{{"{form.name_key}": {name}, "{form.arguments_key}": '
                return f"{text(head)} {self._json(tool)} {text('}' + form.after)}"
            case TaggedCall():
                arguments = " ".join(self._tagged(form, tool))
                return f"{self._tagged_head(form, before, tool)} {arguments} {text(form.after)}"
            case PythonCall():
                return f"{text(before + tool.name + '(')} {self._keywords(tool)} {text(')' + form.after)}"
            case BracedCall():
                arguments = braced_object(self._rules, form.quote, tool.parameters)
                return f"{text(before + tool.name)} {arguments} {text(form.after)}"
            case NestedCall():
                arguments = nested_elements(self._rules, form.mark, tool.parameters)
                return f"{text(before + tool.name + form.name_after)} {arguments} {text(form.after)}"
            case NamedCall():
                id = f"/[a-z0-9]{{10}}/ {text(form.id_after)}" if form.id_after else ""
                name = f'"functions.{tool.name}:" /[0-9]{{1,2}}/' if form.numbered else text(tool.name)
                return f"{text(before)} {id} {name} {text(form.between)} {self._json(tool)} {text(form.after)}"
        raise AssertionError(form)

    def _json(self, tool: Tool) -> str:
        return self._rules.json(closed(tool.parameters))

    def _keywords(self, tool: Tool) -> str:
        """a=1, b="x": optional arguments may be left out, with their commas."""
        items = []
        for name, schema, required in properties(tool.parameters):
            if not name.isidentifier():
                raise UnsupportedSchema
            items.append((f"{self._rules.text(name + '=')} {self._rules.json(schema)}", required))
        return self._rules.members(items, ", ")

    def _tagged_head(self, form: TaggedCall, before: str, tool: Tool) -> str:
        text = self._rules.text
        if not form.number_before:
            return text(before + tool.name + form.name_after)
        return f"{text(before + tool.name + form.number_before)} /[0-9]{{1,2}}/ {text(form.name_after)}"

    def _tagged(self, form: TaggedCall, tool: Tool) -> Iterator[str]:
        for name, schema, required in properties(tool.parameters):
            if isinstance(form, TypedCall):
                argument = self._typed(form, name, schema)
            else:
                before = self._rules.text(f"{form.key_before}{name}{form.key_after}")
                argument = f"{before} {self._plain(schema, form.value_after, form.raw)}"
            yield argument if required else f"({argument})?"

    def _typed(self, form: TypedCall, name: str, schema: Schema) -> str:
        """One alternative for each type that the value may have."""
        type_names, alternatives = dict(form.types), []
        for type, each in schemas_by_type(schema):
            before = f"{form.key_before}{name}{form.type_before}{type_names[type]}{form.key_after}"
            alternatives.append(f"{self._rules.text(before)} {self._plain(each, form.value_after)}")
        return self._rules.add(" | ".join(alternatives))

    def _plain(self, schema: Schema, end: str, raw: tuple[str, str] = ("", "")) -> str:
        """A string as it is, any other value as JSON. `raw`: marks that may stand around a string."""
        text, types = self._rules.text, declared_types(schema)
        options = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(options, list) and all(isinstance(option, str) for option in options):
            return f"({' | '.join(map(text, options))}) {text(end)}"
        if types and "string" not in types:
            return f"{self._rules.json(schema)} {text(end)}"
        if types and types <= {"string", "null"} and not STRING_LIMITS & schema.keys() and options is None:
            return self._raw(end, *raw) if any(raw) else self._rules.up_to(end)
        raise UnsupportedSchema

    def _raw(self, end: str, opening: str, closing: str) -> str:
        """Between the marks, or without them if it does not begin with the first one's character."""
        marked = f"{self._rules.text(opening)} {self._rules.up_to(closing)} {self._rules.text(end)}"
        bare = f"/[^{opening[0]}]/ {self._rules.up_to(end)}"
        return f"({marked} | {bare} | {self._rules.text(end)})"
