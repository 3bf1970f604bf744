"""The output of each model family is parsed alike, wherever it is split into pieces."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.submission import Tool, Tools
from tests.support.gateway.completions import PlainPart, every_cut, parts_of
from worker.output.completion_parser import CompletionParser
from worker.output.family_detection import REASONING
from worker.output.family_format import ReasoningMarks
from worker.output.family_table import FORMATS

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "units": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "detail": {"type": "boolean"},
        "hours": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["city"],
}
TOOLS = Tools([Tool("get_weather", parameters=WEATHER), Tool("now")])
THINK = REASONING[0]
PARIS = {"city": "Paris", "days": 3}


def parser(
    format: str, reasoning: ReasoningMarks | None = None, opened: str = "", tools: Tools | None = TOOLS
) -> CompletionParser:
    return CompletionParser(FORMATS[format], reasoning, tools, opened)


def call(name: str = "get_weather", **arguments: object) -> tuple[str, str, object]:
    return ("call", name, arguments)


def parsed(parts: list[PlainPart]) -> list[tuple[object, ...]]:
    """Parts with the arguments of calls parsed as JSON."""
    return [(*part[:2], json.loads(part[2])) if part[0] == "call" else part for part in parts]


CASES: list[tuple[str, str, list[tuple[object, ...]]]] = [
    (
        "hermes",
        'Let me look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        [("text", "Let me look."), call(**PARIS), call("now")],
    ),
    (
        "hermes",
        '<tool_call>{"arguments": {"city": "a\\"}</tool_call>"}, "name": "get_weather"}</tool_call>\nDone.',
        [call(city='a"}</tool_call>'), ("text", "Done.")],
    ),
    (
        "llama3-json",
        '{"name": "get_weather", "parameters": {"city": "Paris", "days": 3}}',
        [call(**PARIS)],
    ),
    (
        "llama3-json",
        '<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Paris", "days": 3}}; '
        '{"name": "now", "parameters": {}}',
        [call(**PARIS), call("now")],
    ),
    (
        "pythonic",
        "[get_weather(city=\"P's)\\\"\", days=3, units=None, hours=[1, 2], detail=true), now()]",
        [call(city="P's)\"", days=3, units=None, hours=[1, 2], detail=True), call("now")],
    ),
    ("pythonic", '<|python_start|>[get_weather(city="Paris", days=3)]<|python_end|>', [call(**PARIS)]),
    ("lfm2", "<|tool_call_start|>[get_weather(city='Paris', days=3)]<|tool_call_end|>Wait.", [
        call(**PARIS),
        ("text", "Wait."),
    ]),
    ("gemma", "Sure!\n```tool_code\nprint(get_weather(city='''Paris''', days=3))\nnow()\n```\nDone", [
        ("text", "Sure!"),
        call(**PARIS),
        call("now"),
        ("text", "Done"),
    ]),
    (
        "functiongemma",
        "<start_function_call>call:get_weather{city:<escape>P, {a:[1]}<escape>,days:3,units:null}<end_function_call>"
        "<start_function_call>call:now{}<end_function_call>",
        [call(city="P, {a:[1]}", days=3, units=None), call("now")],
    ),
    (
        "gemma-4",
        'I look.<|tool_call>call:get_weather{city:<|"|>"P"\n<|"|>,days:-3.5,hours:[1, 2],detail:true}<tool_call|>'
        '<|tool_call>call:now{zone:{name:<|"|>UTC<|"|>,<|"|>at: <|"|>:[],of:{}}}<tool_call|>',
        [
            ("text", "I look."),
            call(city='"P"\n', days=-3.5, hours=[1, 2], detail=True),
            call("now", zone={"name": "UTC", "at: ": [], "of": {}}),
        ],
    ),
    (
        "gemma-4",
        '<|tool_call>call:get_weather{city: Paris , "units": "k", detail: True}<tool_call|>Done.<channel|>',
        [call(city="Paris", units="k", detail=True), ("text", "Done.")],
    ),
    ("gemma-4", "<|channel>thought\n<channel|>Hello.", [("text", "Hello.")]),
    (
        "mistral",
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}, '
        '{"name": "now", "arguments": {}, "id": "abcdefghi"}]',
        [call(**PARIS), call("now")],
    ),
    (
        "mistral-args",
        'Yes.[TOOL_CALLS]get_weather[ARGS]{"city": "Paris", "days": 3}[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}',
        [("text", "Yes."), call(**PARIS), call("now")],
    ),
    (
        "functionary-v3.2",
        '>>>all\nI look.\n>>>get_weather\n{"city": "Paris", "days": 3}\n>>>now\n{}',
        [("text", "I look."), call(**PARIS), call("now")],
    ),
    (
        "function-tag",
        'I look.<function=get_weather>{"city": "Paris", "days": 3}</function>\n<function=now>{}</function>',
        [("text", "I look."), call(**PARIS), call("now")],
    ),
    (
        "deepseek-r1",
        "Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris", "days": 3}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n'
        "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [("text", "Hm."), call(**PARIS), call("now")],
    ),
    (
        "deepseek-v3.1",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris", "days": 3}'
        "<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [call(**PARIS), call("now")],
    ),
    (
        "deepseek-v3.2",
        'I look.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n'
        '<｜DSML｜parameter name="city" string="true">12</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="units" string="false">null</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="hours">[1, 2]</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="zip" string="true">075</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        '<｜DSML｜invoke name="now">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
        [("text", "I look."), call(city="12", days=3, units=None, hours=[1, 2], zip="075"), call("now")],
    ),
    (
        "deepseek-v4",
        '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="now">\n\n</｜DSML｜invoke>\n<｜DSML｜invoke name="get_weather">\n'
        '<｜DSML｜parameter name="city" string="true">a\n"b"</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        "</｜DSML｜tool_calls>",
        [call("now"), call(city='a\n"b"')],
    ),
    (
        "qwen-coder",
        "I look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\n12\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n<parameter=hours>\n[1, 2]\n</parameter>\n<parameter=detail>\nTrue\n</parameter>\n"
        "<parameter=units>\nnull\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=now>\n</function>\n</tool_call>",
        [("text", "I look."), call(city="12", days=3, hours=[1, 2], detail=True, units=None), call("now")],
    ),
    (
        "qwen-coder",
        '<function=get_weather>\n<parameter=city>\n  a "b"\n\nc\n</parameter>\n</function>\n</tool_call>',
        [call(city='  a "b"\n\nc')],
    ),
    (
        "seed-oss",
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n<parameter=days>3</parameter>\n"
        "</function>\n</seed:tool_call>",
        [call(**PARIS)],
    ),
    (
        "minimax-m2",
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
        '<parameter name="days">3</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n</minimax:tool_call>',
        [call(**PARIS), call("now")],
    ),
    (
        "minimax-m3",
        "I look.]<]minimax[>[<tool_call>\n"
        ']<]minimax[>[<invoke name="get_weather">]<]minimax[>[<city>a <b>\n]<]minimax[>[</city>'
        "]<]minimax[>[<days>3]<]minimax[>[</days>]<]minimax[>[<hours>]<]minimax[>[<item>1]<]minimax[>[</item>"
        "]<]minimax[>[<item>2]<]minimax[>[</item>]<]minimax[>[</hours>]<]minimax[>[<place>]<]minimax[>[<lat>1.5"
        "]<]minimax[>[</lat>]<]minimax[>[<names>]<]minimax[>[<item>P]<]minimax[>[</item>]<]minimax[>[</names>"
        "]<]minimax[>[</place>]<]minimax[>[</invoke>\n"
        ']<]minimax[>[<invoke name="now">]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>',
        [
            ("text", "I look."),
            call(city="a <b>\n", days=3, hours=[1, 2], place={"lat": 1.5, "names": ["P"]}),
            call("now"),
        ],
    ),
    (
        "minimax-m3",
        '</mm:think>Hm.]<]minimax[>[<tool_call>]<]minimax[>[<invoke name="get_weather">\n]<]minimax[>[<hours>'
        "]<]minimax[>[</hours>]<]minimax[>[</invoke>]<]minimax[>[</tool_call>",
        [("text", "Hm."), call(hours=[])],
    ),
    (
        "glm",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>",
        [call(**PARIS), call("now")],
    ),
    (
        "granite",
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}]',
        [call(**PARIS)],
    ),
    (
        "granite",
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}]<|/tool_call|>',
        [call(**PARIS)],
    ),
    (
        "apriel",
        'Let me look.\n<tool_calls>[{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}, '
        '{"name": "now", "arguments": {}}]</tool_calls>',
        [("text", "Let me look."), call(**PARIS), call("now")],
    ),
    (
        "minimax-m1",
        '<tool_calls>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n'
        '{"name": "now", "arguments": {}}\n</tool_calls>',
        [call(**PARIS), call("now")],
    ),
    (
        "firefunction",
        'functools[{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}, '
        '{"name": "now", "arguments": {}}]',
        [call(**PARIS), call("now")],
    ),
    (
        "nemotron",
        '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}]</TOOLCALL>',
        [call(**PARIS)],
    ),
    (
        "command-r",
        'Action:\n```json\n[\n    {\n        "tool_name": "get_weather",\n        "parameters": {\n            '
        '"city": "Paris",\n            "days": 3\n        }\n    }\n]\n```',
        [call(**PARIS)],
    ),
    (
        "command-r7b",
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", '
        '"parameters": {"city": "Paris", "days": 3}}\n]<|END_ACTION|>',
        [call(**PARIS)],
    ),
    ("command-r7b", "<|START_RESPONSE|>Hello.\n<|END_RESPONSE|>", [("text", "Hello.\n")]),
    (
        "apertus",
        'I look.<|tools_prefix|>[{"get_weather": {"city": "Paris", "days": 3}}, {"now": {}}]<|tools_suffix|>',
        [("text", "I look."), call(**PARIS), call("now")],
    ),
    (
        "gigachat-3",
        'I look.<|message_sep|>\n\nfunction call<|role_sep|>\n{"name": "get_weather", "arguments": '
        '{"city": "Paris", "days": 3}}<|message_sep|>\n\n',
        [("text", "I look."), call(**PARIS)],
    ),
    ("gigachat-3", "Hello.<|message_sep|>\n\n", [("text", "Hello.")]),
    (
        "gigachat-3.1",
        'I look.<|function_call|>{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}<|message_sep|>\n\n',
        [("text", "I look."), call(**PARIS)],
    ),
    (
        "minicpm5",
        'I look.\n<function name="get_weather"><param name="city"><![CDATA[<b>\n</param>]]></param>'
        '<param name="days">3</param></function>\n<function name="now"></function>',
        [("text", "I look."), call(city="<b>\n</param>", days=3), call("now")],
    ),
    (
        "hy3",
        "I look.<tool_calls:opensource>\n<tool_call:opensource>get_weather<tool_sep:opensource>\n"
        "<arg_key:opensource>city</arg_key:opensource>\n<arg_value:opensource>Paris</arg_value:opensource>\n"
        "<arg_key:opensource>days</arg_key:opensource>\n<arg_value:opensource>3</arg_value:opensource>\n"
        "</tool_call:opensource>\n<tool_call:opensource>now<tool_sep:opensource>\n</tool_call:opensource>\n"
        "</tool_calls:opensource>",
        [("text", "I look."), call(**PARIS), call("now")],
    ),
    (
        "solar-open",
        '<|tool_calls|><|tool_call:begin|>a1b2c3d4e5<|tool_call:name|>get_weather<|tool_call:args|>{"city": "Paris", '
        '"days": 3}<|tool_call:end|><|tool_call:begin|>f6g7h8i9j0<|tool_call:name|>now<|tool_call:args|>{}'
        "<|tool_call:end|><|calls|>",
        [call(**PARIS), call("now")],
    ),
    ("solar-open", "<|content|>Hello\n<|end|>", [("text", "Hello\n")]),
    (
        "kimi-k3",
        '<|open|>response<|sep|>I look.<|close|>response<|sep|><|open|>tools<|sep|><|open|>call tool="get_weather" '
        'index="1"<|sep|><|open|>argument key="city" type="string"<|sep|>12<|close|>argument<|sep|><|open|>argument '
        'key="days" type="number"<|sep|>3<|close|>argument<|sep|><|open|>argument key="zip" type="string"<|sep|>075'
        '<|close|>argument<|sep|><|close|>call<|sep|><|open|>call tool="now" index="2"<|sep|><|close|>call<|sep|>'
        "<|close|>tools<|sep|><|close|>message<|sep|>",
        [("text", "I look."), call(city="12", days=3, zip="075"), call("now")],
    ),
    ("kimi-k3", "Hello.<|close|>response<|sep|><|close|>message<|sep|>", [("text", "Hello.")]),
    (
        "apriel",
        '<tool_calls>[{"name": "now", "arguments": {}}]</tool_calls>\n[END FINAL RESPONSE]',
        [call("now")],
    ),
    (
        "harmony",
        "<|channel|>analysis<|message|>I need it.<|end|><|start|>assistant<|channel|>commentary to=functions."
        'get_weather <|constrain|>json<|message|>{"city": "Paris", "days": 3}<|call|>',
        [("reasoning", "I need it."), call(**PARIS)],
    ),
    (
        "harmony",
        "<|channel|>analysis<|message|>Hm.\n<|end|><|start|>assistant to=functions.now<|channel|>commentary "
        "json<|message|>{}",
        [("reasoning", "Hm."), call("now")],
    ),
    (
        "harmony",
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>final<|message|>{1}",
        [("text", "I look.{1}")],
    ),
    (
        "muse-glimmer",
        "<|start|>assistant to=self<|message|>Hm.<|eom|><|start|>assistant to=get_weather<|message|>"
        '<atem:function_calls>\n<atem:invoke name="get_weather">\n<atem:parameter name="city">Paris</atem:parameter>\n'
        '<atem:parameter name="days">3</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eom|>'
        '<|start|>assistant to=now<|message|><atem:function_calls>\n<atem:invoke name="now">\n</atem:invoke>\n'
        "</atem:function_calls><|eot|>",
        [("reasoning", "Hm."), call(**PARIS), call("now")],
    ),
    (
        "muse-glimmer",
        "<|start|>assistant to=user<|message|>I look.<|eom|><|start|>assistant to=now<|message|>"
        '<atem:function_calls><atem:invoke name="now"></atem:invoke></atem:function_calls>',
        [("text", "I look."), call("now")],
    ),
    ("muse-glimmer", "<|start|>assistant<|message|>Hello.<|eot|> to=", [("text", "Hello.")]),
    (
        "kimi-k2",
        "Yes.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"city": "Paris", "days": 3}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>'
        "{}<|tool_call_end|><|tool_calls_section_end|>",
        [("text", "Yes."), call(**PARIS), call("now")],
    ),
    ("json", '{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}', [call(**PARIS)]),
    (
        "json",
        'Sure:\n```json\n[{"name": "get_weather", "parameters": {"city": "Paris", "days": 3}}]\n```\nDone.',
        [("text", "Sure:"), call(**PARIS), ("text", "Done.")],
    ),
    (
        "json",
        '{"type": "function", "function": {"name": "now", "arguments": "{\\"a\\": [1]}"}}',
        [call("now", a=[1])],
    ),
]  # fmt: skip


def test_every_format_has_a_case() -> None:
    assert {format for format, _, _ in CASES} == set(FORMATS)


@pytest.mark.parametrize(("format", "text", "parts"), CASES)
def test_a_completion_has_the_same_parts_wherever_it_is_cut(
    format: str, text: str, parts: list[tuple[object, ...]]
) -> None:
    assert parsed(every_cut(lambda: parser(format), text)) == parts


@pytest.mark.parametrize(("format", "text", "parts"), CASES)
def test_a_truncated_call_is_emitted_as_far_as_it_goes(format: str, text: str, parts: list[tuple[object, ...]]) -> None:
    for end in range(0, len(text), 3):
        cut = parts_of(parser(format), text[:end])
        assert cut == parts_of(parser(format), [text[:end]])
        names = [part[1] for part in cut if part[0] == "call"]
        assert names == [part[1] for part in parts if part[0] == "call"][: len(names)]


@pytest.mark.parametrize("format", [name for name in FORMATS if not FORMATS[name].messages])
def test_without_tools_calls_are_text(format: str) -> None:
    for _, text, _ in (case for case in CASES if case[0] == format):
        (part,) = every_cut(lambda: parser(format, tools=None), text)
        assert part[0] == "text"


@pytest.mark.parametrize("marks", REASONING)
def test_reasoning_comes_before_the_answer(marks: ReasoningMarks) -> None:
    text = f"{marks.start}\nIs it?\n\nYes.\n{marks.end}\n\nIt {marks.start} is.\n"
    parts = [("reasoning", "Is it?\n\nYes."), ("text", f"It {marks.start} is.\n")]
    assert every_cut(lambda: CompletionParser(reasoning=marks), text) == parts


def test_a_prompt_may_have_opened_the_reasoning() -> None:
    text = 'Hm.\n</think>\n<tool_call>{"name": "now"}</tool_call>'
    parts = every_cut(lambda: parser("hermes", THINK, opened="<think>"), text)
    assert parts == [("reasoning", "Hm."), ("call", "now", "{}")]


SOLAR_THOUGHT = ReasoningMarks("<|think|>", "<|end|><|begin|>assistant")
APRIEL_THOUGHT = ReasoningMarks("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]")
KIMI_THOUGHT = ReasoningMarks("<|open|>think<|sep|>", "<|close|>think<|sep|>")
HY3_THOUGHT = ReasoningMarks("<think:opensource>", "</think:opensource>")


@pytest.mark.parametrize(
    ("format", "reasoning", "opened", "text"),
    [
        ("solar-open", SOLAR_THOUGHT, "", "<|think|>Hm.<|end|><|begin|>assistant<|content|>Hello.<|end|>"),
        ("apriel", APRIEL_THOUGHT, "Here are my reasoning steps:", "\nHm.\n[BEGIN FINAL RESPONSE]\nHello."),
        ("apriel", APRIEL_THOUGHT, "", "Here are my reasoning steps:\nHm.\n[BEGIN FINAL RESPONSE]\nHello."),
        (
            "kimi-k3",
            KIMI_THOUGHT,
            "<|open|>think<|sep|>",
            "Hm.<|close|>think<|sep|><|open|>response<|sep|>Hello.<|close|>response<|sep|><|close|>message<|sep|>",
        ),
        ("hy3", HY3_THOUGHT, "<think:opensource>", "Hm.</think:opensource>Hello."),
    ],
)
@pytest.mark.parametrize("tools", [TOOLS, None])
def test_reasoning_and_answer_are_distinguished(
    format: str, reasoning: ReasoningMarks, opened: str, text: str, tools: Tools | None
) -> None:
    parts = [("reasoning", "Hm."), ("text", "Hello.")]
    assert every_cut(lambda: parser(format, reasoning, opened, tools), text) == parts


def test_an_answer_may_be_opened_by_the_prompt() -> None:
    text = "Hello.<|close|>response<|sep|>"
    opened = "<|open|>response<|sep|>"
    assert every_cut(lambda: parser("kimi-k3", KIMI_THOUGHT, opened), text) == [("text", "Hello.")]


@pytest.mark.parametrize("tools", [TOOLS, None])
def test_a_completion_is_complete_after_the_mark_that_ends_it(tools: Tools | None) -> None:
    ended = parser("gigachat-3.1", tools=tools)
    ended.push("Hello.<|message_se")
    assert not ended.complete
    ended.push("p|>")
    assert ended.complete


@pytest.mark.parametrize("tools", [TOOLS, None])
def test_a_prompt_may_have_opened_a_message_with_a_header(tools: Tools | None) -> None:
    text = " to=self<|message|>Hm.<|eom|><|start|>assistant to=user<|message|>Hello, you.<|eot|>"
    parts = every_cut(lambda: parser("muse-glimmer", opened="<|start|>assistant", tools=tools), text)
    assert parts == [("reasoning", "Hm."), ("text", "Hello, you.")]
    named = ' to=now<|message|><atem:function_calls><atem:invoke name="now"></atem:invoke></atem:function_calls>'
    text = named + "<|eom|><|start|>assistant Hi"
    parts = every_cut(lambda: parser("muse-glimmer", opened="<|start|>assistant"), text)
    assert parts == [("call", "now", "{}"), ("text", "<|start|>assistant Hi")]


def test_a_mark_opened_by_the_prompt_does_not_alter_text_after_a_call() -> None:
    parts = every_cut(lambda: parser("functionary-v3.2", opened=">>>"), "now\n{}\nDone.")
    assert parts == [("call", "now", "{}"), ("text", "Done.")]


def test_unclosed_reasoning_is_reasoning_to_the_end() -> None:
    text = 'Hm <tool_call>{"name": "now"}</tool_call> \n'
    assert every_cut(lambda: parser("hermes", THINK, opened="<think>"), text) == [("reasoning", text)]


def test_a_call_within_reasoning_ends_it() -> None:
    text = 'Hm.\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="now">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>'
    parts = [("reasoning", "Hm."), ("call", "now", "{}")]
    assert every_cut(lambda: parser("deepseek-v4", THINK, opened="<think>"), text) == parts
    alone = every_cut(lambda: parser("deepseek-v4", THINK, opened="<think>", tools=None), text)
    assert alone == [("reasoning", text)]


def test_a_prompt_may_have_opened_a_message() -> None:
    for text, parts in [
        ("all\nHello\n", [("text", "Hello\n")]),
        ("now\n{}", [("call", "now", "{}")]),
        ("Hello >>> there", [("text", "Hello >>> there")]),
    ]:
        assert every_cut(lambda: parser("functionary-v3.2", opened=">>>"), text) == parts


MALFORMED = [
    ("hermes", '<tool_call>\n{"name": get_weather}\n</tool_call>'),
    ("hermes", "A <tool_call> is <tool_call"),
    ("hermes", '<tool_call>{"name": "now", '),
    ("hermes", '<tool_call>{"name": "now", "arguments": [1]}</tool_call>'),
    ("llama3-json", '{"name": "Ada", "parameters": {"born": 1815}}'),
    ("llama3-json", '{"answer": 42}\n'),
    ("pythonic", "[get_weather(3)]"),
    ("pythonic", "[unknown(a=1)]"),
    ("pythonic", "[1, 2] is a list"),
    ("pythonic", "[now(a=__import__('os'))]"),
    ("pythonic", "[now(a=" + "[" * 80),
    ("pythonic", "[now(a=" + "-" * 300 + "1)]"),
    ("gemma", "```tool_code\nnow(*a)\n```"),
    ("functiongemma", "<start_function_call>call:now<end_function_call>"),
    ("functiongemma", "<start_function_call>now{}"),
    ("gemma-4", "<|tool_call>call:{}<tool_call|>"),
    ("mistral", "[TOOL_CALLS] none"),
    ("mistral-args", "[TOOL_CALLS]now{}"),
    ("qwen-coder", "<tool_call>\n<function=get_weather>\nParis\n</function>"),
    ("glm", "<tool_call>\n</tool_call>"),
    ("minimax-m3", ']<]minimax[>[<tool_call>]<]minimax[>[<invoke name="now">soon]<]minimax[>[</invoke>'),
    ("harmony", "<|channel|>commentary to=functions.now<|message|>soon"),
    ("muse-glimmer", "<|start|>assistant to=now<|message|>soon"),
    ("kimi-k2", "<|tool_calls_section_begin|>nothing<|tool_calls_section_end|>"),
    ("apertus", '<|tools_prefix|>[{"now": soon}]'),
    ("minicpm5", "<function name='now'></function>"),
    ("solar-open", "<|tool_calls|><|tool_call:begin|>now<|tool_call:args|>{}"),
    ("json", '```json\n{"name": "Ada", "arguments": {}}\n```'),
    ("json", '{"description": "x", "name": "now"}'),
    ("json", '{{{[["name": "now" [ { ```json { ``` '),
    ("json", "[" * 100),
]


@pytest.mark.parametrize(("format", "text"), MALFORMED)
def test_a_malformed_call_is_text(format: str, text: str) -> None:
    assert every_cut(lambda: parser(format), text) == [("text", text)]


@pytest.mark.parametrize("text", ["[now(a=" + "-" * 20_000 + "1)]", "[now(a=" + "[" * 20_000, "[" * 5000])
def test_a_too_deeply_nested_call_is_text(text: str) -> None:
    assert parts_of(parser("pythonic"), [text]) == [("text", text)]


def test_truncated_arguments_stay_emitted_and_the_rest_is_text() -> None:
    text = '<tool_call>{"name": "now", "arguments": {"a": 1,}}</tool_call> <tool_call>{"name": "now"}</tool_call>'
    parts = every_cut(lambda: parser("hermes"), text)
    assert parts == [("call", "now", '{"a": 1,'), ("text", "}}</tool_call>"), ("call", "now", "{}")]


def test_a_value_between_marks_ends_at_the_closing_mark() -> None:
    text = '<function name="now"><param name="a">1</param><param name="b"><![CDATA[x]]>y</param></function>'
    assert every_cut(lambda: parser("minicpm5"), text)[0] == ("call", "now", '{"a": 1')


def test_arguments_are_emitted_as_written() -> None:
    streaming = parser("hermes")
    assert streaming.push('<tool_call>{"name": "now", "arguments": ') == []
    (begun, _) = streaming.push("{")
    assert (begun.name, begun.arguments) == ("now", "")  # type: ignore[union-attr]
    assert [part.arguments for part in streaming.push('"a": "xy')] == ['"a": "xy']  # type: ignore[union-attr]


def test_line_breaks_within_strings_are_escaped() -> None:
    parts = every_cut(lambda: parser("hermes"), '<tool_call>{"name": "now", "arguments": {"a": "x\ny"}}</tool_call>')
    assert parts == [("call", "now", '{"a": "x\\ny"}')]


def test_text_that_cannot_be_a_mark_is_emitted_at_once() -> None:
    streaming = parser("hermes", THINK)
    assert [len(streaming.push(piece)) for piece in ("Hello", " wor", "ld <", "b")] == [1, 1, 1, 1]


def test_without_parallel_calls_only_the_first_is_emitted() -> None:
    one = Tools(TOOLS.tools, one_at_a_time=True)
    text = '<tool_call>{"name": "now"}</tool_call><tool_call>{"name": "get_weather"}</tool_call>'
    assert every_cut(lambda: parser("hermes", tools=one), text) == [("call", "now", "{}")]
    ended = parser("hermes", tools=one)
    ended.push('<tool_call>{"name": "now"')
    assert not ended.complete
    ended.push("}")
    assert ended.complete


def test_an_invented_tool_result_ends_the_completion() -> None:
    text = "Yes.<start_function_call>call:now{}<end_function_call>\n<start_function_response>response:now{value:1}"
    assert every_cut(lambda: parser("functiongemma"), text) == [("text", "Yes."), ("call", "now", "{}")]
    ended = parser("functiongemma")
    ended.push("<start_function_call>call:now{}<end_function_call><start_function_respons")
    assert not ended.complete
    ended.push("e>")
    assert ended.complete


@pytest.mark.parametrize(
    "value",
    [
        "b" * 300,
        "/b>",
        "b>x]<]minimax[>[<c>1]<]minimax[>[</c>]<]minimax[>[</b>",
        "b>]<]minimax[>[<c>1]<]minimax[>[</c>]<]minimax[>[<c>1]<]minimax[>[</c>]<]minimax[>[</b>",
        "b>" + "]<]minimax[>[<c>" * 80,
        "a>2]<]minimax[>[</a>",
    ],
)
def test_truncated_nested_arguments_stay_emitted(value: str) -> None:
    text = ']<]minimax[>[<tool_call>]<]minimax[>[<invoke name="now">]<]minimax[>[<a>1]<]minimax[>[</a>]<]minimax[>[<'
    assert parts_of(parser("minimax-m3"), [text + value])[0] == ("call", "now", '{"a": 1')


@pytest.mark.parametrize("value", ["[" * 80, "x" * 5000, "<|tool_call>", ",", '<|"|>' + "x" * 10_000])
def test_truncated_braced_arguments_stay_emitted(value: str) -> None:
    text = "<|tool_call>call:now{a:1,b:" + value
    assert parts_of(parser("gemma-4"), [text])[0] == ("call", "now", '{"a": 1')


def test_call_ids_have_the_form_of_the_family() -> None:
    def id_of(format: str, text: str) -> str:
        part, *_ = parser(format).push(text)
        return str(part.id)  # type: ignore[union-attr]

    assert id_of("mistral", '[TOOL_CALLS][{"name": "now"}]').isalnum()
    assert len(id_of("mistral", '[TOOL_CALLS][{"name": "now"}]')) == 9
    ids = {id_of("hermes", '<tool_call>{"name": "now"}</tool_call>\n.') for _ in range(50)}
    assert len(ids) == 50
    assert {(id.startswith("call_"), len(id)) for id in ids} == {(True, 29)}
    solar = "<|tool_calls|><|tool_call:begin|>a1b2c3d4e5<|tool_call:name|>now<|tool_call:args|>{"
    assert id_of("solar-open", solar) == "a1b2c3d4e5"
    kimi = "<|tool_calls_section_begin|><|tool_call_begin|>functions.now:3<|tool_call_argument_begin|>{"
    assert id_of("kimi-k2", kimi) == "functions.now:3"


FRAGMENTS = sorted({piece for _, text, _ in CASES for piece in (text[:9], text[-12:], *text.split(" ")[:3])})
garbled = st.lists(st.sampled_from([*FRAGMENTS, " ", "\n", '"', "{", "}", "x", "<", "é"]), max_size=12).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), garbled, st.integers())
def test_any_text_has_the_same_parts_wherever_it_is_cut(format: str, text: str, seed: int) -> None:
    rng, pieces, at = random.Random(seed), [], 0
    while at < len(text):
        pieces.append(text[at : at + rng.randint(1, 5)])
        at += len(pieces[-1])
    whole = parts_of(parser(format, THINK), [text])
    assert parts_of(parser(format, THINK), pieces) == whole
    assert parts_of(parser(format, THINK), text) == whole


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), garbled)
def test_no_text_is_lost(format: str, text: str) -> None:
    """Without a call, all of it is emitted, except for marks without meaning."""
    parts = parts_of(parser(format), text)
    last = FORMATS[format].end_of_turn
    if not FORMATS[format].messages and not (last and last in text) and all(part[0] == "text" for part in parts):
        for mark in FORMATS[format].ignored:
            text = text.replace(mark, "")
        assert "".join(part[1] for part in parts) == text


def test_a_mark_is_found_after_text_that_ends_with_its_first_characters() -> None:
    text = '<p>hi</p>>>>now\n{"zone": "UTC"}'
    said = [("text", "<p>hi</p>"), ("call", "now", '{"zone": "UTC"}')]
    assert every_cut(lambda: parser("functionary-v3.2"), text) == said
