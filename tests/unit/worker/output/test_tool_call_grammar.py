"""Grammars of tool calls, tested with texts randomly sampled under them, over a vocabulary of bytes."""

import dataclasses
import json
import random
import re
from typing import Any

import jsonschema
import pytest
from llguidance import LLMatcher

from atelier.submission import Tool, ToolChoice, Tools
from tests.support.gateway.completions import PlainPart, parts_of
from tests.support.worker.byte_vocabulary import TOKENS, byte_tokenizer
from worker.engine.constraint.json_schema import embedded_schema
from worker.engine.constraint.sandboxed_compile import start_matcher
from worker.output.completion_parser import CompletionParser
from worker.output.completion_parts import AnswerText, PartType, Reasoning
from worker.output.family_detection import REASONING
from worker.output.family_format import ReasoningMarks
from worker.output.family_table import FORMATS
from worker.output.lark_rules import Spelling
from worker.output.parameter_schema import UnsupportedSchema, closed
from worker.output.tool_call_grammar import calls_grammar

CONTROL = (
    *("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|eom|>", "<|constrain|>"),
    *("<|content|>", "<|begin|>", "<|think|>", "<|tool_calls|>", "<|sep|>", "<|open|>", "<|close|>"),
    *("[TOOL_CALLS]", "<tool_call>", "<|tool_call>", '<|"|>'),
)
VOCABULARY = [*TOKENS[:-1], *(b"\xff" + mark.encode() for mark in CONTROL), b"<end>"]
TOKENIZER = byte_tokenizer(VOCABULARY)
PATTERN = re.compile("|".join(map(re.escape, CONTROL)))

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"enum": ["celsius", "kelvin"]},
        "days": {"type": "integer", "minimum": 0, "maximum": 9},
        "exact": {"type": "boolean"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "hours": {"type": "array", "items": {"$ref": "#/$defs/hour"}, "maxItems": 3},
    },
    "$defs": {"hour": {"type": "integer", "minimum": 0, "maximum": 24}},
    "required": ["unit", "days"],
}
TOOLS = [Tool("get_weather", parameters=PARAMETERS), Tool("now", parameters={"type": "object", "properties": {}})]
THINK = REASONING[0]


def spell(text: str) -> Spelling:
    parts: list[str | int] = []
    at = 0
    for found in PATTERN.finditer(text):
        parts += [text[at : found.start()], 256 + CONTROL.index(found.group())]
        at = found.end()
    return [part for part in [*parts, text[at:]] if part != ""]


def tokens_of(text: str) -> list[int]:
    return [token for part in spell(text) for token in ([part] if isinstance(part, int) else part.encode())]


def start(
    format: str,
    tools: Tools,
    reasoning: ReasoningMarks | None = None,
    opened: str = "",
    answer: dict[str, Any] | None = None,
    continued: PartType | None = None,
) -> LLMatcher:
    lark = calls_grammar(FORMATS[format], tools, reasoning, opened, spell, embedded_schema, answer, continued)
    matcher = start_matcher(TOKENIZER, LLMatcher.grammar_from_lark(lark))
    assert not matcher.is_error(), f"{matcher.get_error()}\n{lark}"
    return matcher


def written(matcher: LLMatcher, rng: random.Random, plain: bytes = b"ab ") -> str:
    """Random choices among the allowed tokens. Only a few letters and digits are chosen, so that texts end."""
    text = b""
    end = len(VOCABULARY) - 1
    while not matcher.is_stopped() and len(text) < 4000:
        bits = matcher.compute_bitmask()
        allowed = [token for token in range(len(VOCABULARY)) if bits[token // 8] >> (token % 8) & 1]
        if end in allowed and (len(allowed) == 1 or rng.random() < 0.5):
            break
        marks = [token for token in allowed if token >= 256 and token != end]
        few = [token for token in allowed if token in (*b'"}]),<>\\/\n', *plain, *b"0123456789")]
        token = rng.choice(marks if marks and rng.random() < 0.5 else few or [t for t in allowed if t != end])
        if token in (*b"<\\",) and len(allowed) > 100 and rng.random() < 0.9:
            continue
        assert matcher.consume_token(token)
        text += VOCABULARY[token].removeprefix(b"\xff")
    return text.decode(errors="replace")


def check(parts: list[PlainPart], tools: Tools) -> None:
    schemas = {tool.name: tool.parameters for tool in tools.callable}
    assert parts
    calls = [part for part in parts if part[0] != "reasoning"]
    for kind, name, arguments in calls:  # type: ignore[misc]
        assert kind == "call"
        jsonschema.validate(json.loads(arguments), schemas[name])


def opened_for(format: str) -> str:
    """The beginning of a message, in families whose prompts end with it."""
    return FORMATS[format].prompt_end if FORMATS[format].messages else ""


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_required_calls_parse_and_validate(format: str) -> None:
    tools = Tools(TOOLS, ToolChoice.REQUIRED)
    for seed in range(4):
        text = written(start(format, tools, opened=opened_for(format)), random.Random(seed))
        if len(text) < 2000:  # others reached the length limit
            check(parts_of(CompletionParser(FORMATS[format], None, tools, opened_for(format)), [text]), tools)


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_a_named_tool_is_called_and_only_once_without_parallel_calls(format: str) -> None:
    tools = Tools(TOOLS, ToolChoice.NAMED, "now", one_at_a_time=True)
    matcher = start(format, tools, opened=opened_for(format))
    text = written(matcher, random.Random(1))
    *thoughts, last = parts_of(CompletionParser(FORMATS[format], None, tools, opened_for(format)), [text])
    assert last[:2] == ("call", "now")
    assert all(kind == "reasoning" for kind, _ in thoughts)  # type: ignore[misc]
    assert matcher.is_accepting() or matcher.is_stopped()
    again = start(format, tools, opened=opened_for(format))
    assert again.validate_tokens(tokens_of(text + text)) == len(tokens_of(text))


@pytest.mark.parametrize("opened", ["", "<think>"])
def test_reasoning_may_precede_required_calls(opened: str) -> None:
    tools = Tools(TOOLS, ToolChoice.REQUIRED)
    text = (
        ("" if opened else "<think>\n") + "Hm { <tool\n</think>\n\n<tool_call>\n" + '{"name": "now", "arguments": {}}'
    )
    matcher = start("hermes", tools, THINK, opened)
    assert matcher.validate_tokens(tokens_of(text)) == len(tokens_of(text))
    parts = parts_of(CompletionParser(FORMATS["hermes"], THINK, tools, opened), [text])
    assert parts == [("reasoning", "Hm { <tool"), ("call", "now", "{}")]


def test_a_mark_opened_by_the_prompt_is_not_required_again() -> None:
    matcher = start("functionary-v3.2", Tools(TOOLS, ToolChoice.NAMED, "now"), opened=">>>")
    assert matcher.validate_tokens(list(b"now\n{}")) == 6


def allows(matcher: LLMatcher, text: str) -> bool:
    tokens = tokens_of(text)
    return matcher.validate_tokens(tokens) == len(tokens)


@pytest.mark.parametrize(
    ("format", "begin"),
    [
        ("hermes", '<tool_call>\n{"name": "get_weather", "arguments": '),
        ("mistral", '[TOOL_CALLS][{"name": "get_weather", "arguments": '),
        ("deepseek-v3.1", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"),
        ("json", '{"name": "get_weather", "arguments": '),
        ("llama3-json", '{"name": "get_weather", "parameters": '),
        ("harmony", "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"),
    ],
)
def test_text_is_free_but_a_calls_arguments_follow_the_schema(format: str, begin: str) -> None:
    strict = Tools([dataclasses.replace(tool, strict=True) for tool in TOOLS])
    before = "" if FORMATS[format].bare or format == "harmony" else "Well, {x} [1]:\n"
    free = "<|channel|>final<|message|>Well" if format == "harmony" else 'Well, {"a": [TOOL_CALL'
    assert allows(start(format, strict), free)
    assert allows(start(format, strict), f'{before}{begin}{{"unit": "kelvin", "days": 3}}')
    assert not allows(start(format, strict), f'{before}{begin}{{"unit": "miles')
    assert not allows(start(format, strict), f'{before}{begin}{{"place')


def test_an_answer_that_follows_its_schema_may_replace_calls() -> None:
    answer = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    tools = Tools(TOOLS)
    assert allows(start("hermes", tools, answer=answer), '{"sum": 3}')
    assert not allows(start("hermes", tools, answer=answer), '{"sum": "')
    assert not allows(start("hermes", tools, answer=answer), "Well")
    assert allows(start("hermes", tools, answer=answer), '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>')


@pytest.mark.parametrize(
    "schema", [{"type": "string", "pattern": "a+"}, {"type": ["string", "object"]}, {"oneOf": []}, {"$ref": "#/x"}]
)
def test_plain_text_arguments_do_not_support_every_schema(schema: dict[str, Any]) -> None:
    tools = Tools([Tool("f", parameters={"type": "object", "properties": {"a": schema}})], ToolChoice.REQUIRED)
    with pytest.raises(UnsupportedSchema):
        calls_grammar(FORMATS["qwen-coder"], tools, None, "", spell, embedded_schema)


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ('{unit:<|"|>kelvin<|"|>,days:3}', True),
        ('{city:<|"|>a "b", {<|"|>,unit:<|"|>kelvin<|"|>,days:3,note:null,hours:[1,24,3]}', True),
        ('{unit:<|"|>kelvin<|"|>,days:3,hours:[]}', True),
        ('{unit:<|"|>miles', False),
        ('{unit:<|"|>kelvin<|"|>,days:33', False),
        ('{unit:<|"|>kelvin<|"|>,days:3,hours:[1,2,3,4', False),
        ('{unit:<|"|>kelvin<|"|>,days:3,hours:[25', False),
        ("{city:a", False),
        ("{days", False),
    ],
)
def test_braced_arguments_follow_the_schema(arguments: str, allowed: bool) -> None:
    matcher = start("gemma-4", Tools(TOOLS, ToolChoice.NAMED, "get_weather"))
    assert allows(matcher, f"<|tool_call>call:get_weather{arguments}") is allowed


M3 = "]<]minimax[>["
M3_NEEDED = f"{M3}<unit>kelvin{M3}</unit>{M3}<days>3{M3}</days>"


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (f"{M3_NEEDED}{M3}</invoke>", True),
        (f"{M3}<city>a <b>{M3}</city>{M3_NEEDED}{M3}<note>x{M3}</note>{M3}</invoke>", True),
        (f"{M3_NEEDED}{M3}<hours>{M3}<item>1{M3}</item>{M3}<item>24{M3}</item>{M3}</hours>", True),
        (f"{M3_NEEDED}{M3}<hours>{M3}</hours>", True),
        (f"{M3}<unit>miles", False),
        (f"{M3}<days>", False),
        (f"{M3_NEEDED}{M3}<hours>{M3}<item>25", False),
        (f"{M3_NEEDED}{M3}<hours>{M3}<item>1{M3}</item>" + f"{M3}<item>2{M3}</item>" * 3, False),
        (f"{M3_NEEDED}{M3}<zone>", False),
    ],
)
@pytest.mark.parametrize("before", ["", "</mm:think>"])
def test_nested_arguments_follow_the_schema(before: str, arguments: str, allowed: bool) -> None:
    matcher = start("minimax-m3", Tools(TOOLS, ToolChoice.NAMED, "get_weather"))
    assert allows(matcher, f'{before}{M3}<tool_call>\n{M3}<invoke name="get_weather">{arguments}') is allowed


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ('<param name="unit">kelvin</param><param name="days">3</param></function>', True),
        ('<param name="city">a]]></param><param name="unit">kelvin', True),
        ('<param name="city"></param><param name="unit">kelvin', True),
        ('<param name="city"><![CDATA[</param>]]></param><param name="unit">kelvin', True),
        ('<param name="city"><b>', False),
        ('<param name="days">x', False),
    ],
)
def test_values_between_marks_follow_the_schema(arguments: str, allowed: bool) -> None:
    matcher = start("minicpm5", Tools(TOOLS, ToolChoice.NAMED, "get_weather"))
    assert allows(matcher, f'<function name="get_weather">{arguments}') is allowed


def test_an_empty_response_section_may_precede_required_calls() -> None:
    begin, empty = "<|open|>response<|sep|>", "<|close|>response<|sep|>"
    call = '<|open|>tools<|sep|><|open|>call tool="now" index="1"<|sep|><|close|>call<|sep|><|close|>tools<|sep|>'
    tools = Tools(TOOLS, ToolChoice.REQUIRED)
    for opened, text in [("", begin + empty), ("", ""), (begin, empty), (begin, "")]:
        assert allows(start("kimi-k3", tools, opened=opened), text + call)
    thought = "<|open|>think<|sep|>"
    marks = ReasoningMarks(thought, "<|close|>think<|sep|>")
    assert allows(start("kimi-k3", tools, marks, thought), f"Hm.{marks.end}{begin}{empty}{call}")


def test_strict_tools_allow_the_marks_of_an_answer() -> None:
    strict = Tools([dataclasses.replace(tool, strict=True) for tool in TOOLS])
    marks = ReasoningMarks("<|think|>", "<|end|><|begin|>assistant")
    thought = f"{marks.start}Hm.{marks.end}"
    for text in (
        "<|content|>Hello.<|end|>",
        "Hello.",
        f"{thought}<|content|>Hello.",
        f"{thought}<|tool_calls|><|tool_call:begin|>a1b2c3d4e5<|tool_call:name|>now<|tool_call:args|>{{}}",
        "<|content|>I look.<|end|><|begin|>assistant<|tool_calls|><|tool_call:begin|>a1b2c3d4e5<|tool_call:name|>",
    ):
        assert allows(start("solar-open", strict, marks), text)
    bad = "<|content|>I look.<|end|><|begin|>assistant<|tool_calls|><|tool_call:begin|>a1b2c3d4e5<|tool_call:name|>no."
    assert not allows(start("solar-open", strict, marks), bad)


def test_messages_may_be_reasoning_answers_or_calls() -> None:
    strict = Tools([dataclasses.replace(tool, strict=True) for tool in TOOLS])
    thought, following = " to=self<|message|>Hm.<|eom|><|start|>assistant", "<|eom|><|start|>assistant"
    call = ' to=now<|message|><atem:function_calls>\n<atem:invoke name="now">\n</atem:invoke>\n</atem:function_calls>'
    answer = " to=user<|message|>Hello."
    for text in (answer, f"{thought}{answer}", f"{thought}{call}", f"{answer}{following}{call}{following}{call}"):
        assert allows(start("muse-glimmer", strict, opened="<|start|>assistant"), text)
    required = Tools(TOOLS, ToolChoice.REQUIRED)
    assert allows(start("muse-glimmer", required, opened="<|start|>assistant"), thought + call)
    assert not allows(start("muse-glimmer", required, opened="<|start|>assistant"), answer)


DSML = '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="get_weather">\n'
DSML_KEY = '<｜DSML｜parameter name="{}" string="{}">{}'
DSML_END = "</｜DSML｜parameter>\n"
DSML_NEEDED = DSML_KEY.format("unit", "true", "kelvin") + DSML_END + DSML_KEY.format("days", "false", "3") + DSML_END


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (DSML_NEEDED + "</｜DSML｜invoke>", True),
        (DSML_KEY.format("city", "true", "3") + DSML_END + DSML_NEEDED, True),
        (DSML_NEEDED + DSML_KEY.format("note", "false", "null") + DSML_END, True),
        (DSML_NEEDED + DSML_KEY.format("note", "true", "null") + DSML_END, True),
        (DSML_NEEDED + DSML_KEY.format("hours", "false", "[1, 24]") + DSML_END, True),
        (DSML_KEY.format("city", "false", ""), False),
        (DSML_KEY.format("unit", "false", ""), False),
        (DSML_NEEDED + DSML_KEY.format("note", "false", "3"), False),
        (DSML_NEEDED + DSML_KEY.format("hours", "false", "[25"), False),
    ],
)
def test_typed_arguments_follow_the_schema(arguments: str, allowed: bool) -> None:
    matcher = start("deepseek-v4", Tools(TOOLS, ToolChoice.NAMED, "get_weather"))
    assert allows(matcher, DSML + arguments) is allowed


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "string", "maxLength": 3},
        {"type": "array"},
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
        {"enum": [[1]]},
        {"anyOf": [{"type": "integer"}], "not": {"const": 1}},
        {"anyOf": [{"type": "integer"}], "minimum": 1},
        {"$ref": "#/$defs/loop"},
    ],
)
@pytest.mark.parametrize("format", ["gemma-4", "minimax-m3"])
def test_braced_and_nested_arguments_do_not_support_every_schema(format: str, schema: dict[str, Any]) -> None:
    loop = {"type": "object", "properties": {"again": {"$ref": "#/$defs/loop"}, "or": {"$ref": "#/$defs/loop"}}}
    parameters = {"type": "object", "properties": {"a": schema}, "$defs": {"loop": loop}}
    with pytest.raises(UnsupportedSchema):
        calls_grammar(FORMATS[format], Tools([Tool("f", parameters=parameters)]), None, "", spell, embedded_schema)


def test_schemas_are_closed_to_arguments_that_they_do_not_name() -> None:
    assert closed({"properties": {"a": {}}})["additionalProperties"] is False
    assert "additionalProperties" not in closed({"properties": {"a": {}}, "allOf": []})
    assert closed({"properties": {"a": {}}, "additionalProperties": True})["additionalProperties"] is True
    assert "additionalProperties" not in closed({})


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_the_rest_of_a_text_may_be_text(format: str) -> None:
    text = tokens_of(" and a bit more.")
    assert start(format, Tools(TOOLS), continued=AnswerText).validate_tokens(text) == len(text)


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_required_calls_follow_the_rest_of_a_thought(format: str) -> None:
    tools, messages = Tools(TOOLS, ToolChoice.REQUIRED), FORMATS[format].messages
    matcher = start(format, tools, THINK, continued=Reasoning)
    end = f"{messages.end}{messages.next_start}" if messages else THINK.end
    for token in tokens_of(f" and so on{end}"):
        assert matcher.consume_token(token)
    text = written(matcher, random.Random(3))
    parser = CompletionParser(FORMATS[format], THINK, tools, continued=Reasoning)
    first, *calls = parts_of(parser, [f" and so on{end}", text])
    assert first == ("reasoning", " and so on")
    if len(text) < 2000:
        check(calls, tools)
