"""Families by fragments of chat templates, and where a completion begins."""

import pytest

from atelier.submission import OutputFormat, Tool, Tools
from worker.output.completion_parser import CompletionParser
from worker.output.completion_parts import PlainText
from worker.output.family_detection import (
    HY3,
    KIMI_K3,
    REASONING,
    SIGNATURES,
    detect_format,
    detect_reasoning,
    knows_tools,
)
from worker.output.family_format import ReasoningMarks
from worker.output.family_table import FORMATS
from worker.output.parser_choice import after_prompt, choose_parser, opened_by

TOOLS = Tools([Tool("f")])
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)

FRAGMENTS = {
    "{% if tools %}Answer with <tool_call>\n{\"name\": ..., \"arguments\": ...}\n</tool_call>{% endif %}": "hermes",
    "{% if tools %}<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter></function></tool_call>{% endif %}": (
        "qwen-coder"
    ),
    "{% if tools %}<tool_call>{function-name}\n<arg_key>{key}</arg_key>\n<arg_value>{v}</arg_value>{% endif %}": "glm",
    "{% for tool in tools %}{% endfor %}{{ '[TOOL_CALLS][' + calls }}": "mistral",
    "{% for tool in tools %}{% endfor %}{{ '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}": "mistral-args",
    "{% if tools %}<|start_header_id|>ipython{{ '<|python_tag|>' + call }}{% endif %}": "llama3-json",
    "<|start_header_id|>{% if tools %}Respond with {\"name\": f, \"parameters\": p}{% endif %}": "llama3-json",
    "{% if tools %}<|python_start|>[f(a=1)]<|python_end|>{% endif %}": "pythonic",
    "{% if tools %}Put it as [func_name1(params_name1=v)]{% endif %}": "pythonic",
    "{% if tools %}<|tool_call_start|>[f(a=1)]<|tool_call_end|>{% endif %}": "lfm2",
    "{% for tool in tools %}{% endfor %}>>>all\n{{ content }}": "functionary-v3.2",
    "{% if tools %}<function=f>{\"a\": 1}</function>{% endif %}": "function-tag",
    "{% if tools %}{{ '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function' + '```json' }}{% endif %}": "deepseek-r1",
    "{% if tools %}{{ '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + name }}{% endif %}": "deepseek-v3.1",
    "{% set d = '｜DSML｜' %}{% if tools %}{{ '<' + d + 'function_calls>' + tool_calls }}{% endif %}": "deepseek-v3.2",
    "{% set d = '｜DSML｜' %}{% if tools %}{{ '<' + d + 'tool_calls>' + tool_calls }}{% endif %}": "deepseek-v4",
    "{% set ns = ']<]minimax[>[' %}{% if tools %}{{ ns + '<tool_call>' + ns + '<invoke name=' }}": "minimax-m3",
    "{% if tools %}<minimax:tool_call><invoke name=\"f\">{% endif %}": "minimax-m2",
    "{% if tools %}<seed:tool_call><function=f><parameter=a>{% endif %}": "seed-oss",
    "{% if tools %}<|tool_call|>{{ calls }}{% endif %}": "granite",
    "{% if tools %}List: <|tool_list_start|>{{ tools }}<|tool_list_end|>{% endif %}": "lfm2",
    "{% if tools %}<tool_calls>[{{ calls }}]</tool_calls>{% endif %}": "apriel",
    "{% if tools %}<tool_calls>\n{{ calls }}\n</tool_calls>{% endif %}": "minimax-m1",
    "{% if tools %} functools[{{ calls }}]{% endif %}": "firefunction",
    "{% if tools %}<TOOLCALL>[{{ calls }}]</TOOLCALL>{% endif %}": "nemotron",
    "{% if tools %}Write 'Action:' and then a list with tool_name{% endif %}": "command-r",
    "{% if tools %}<|START_ACTION|>[{{ calls }}]<|END_ACTION|>{% endif %}": "command-r7b",
    "{% if tools %}List of tools: [{{ tools | tojson }}]{% endif %}": "lfm2",
    "{% set prefix = '<|tools_prefix|>' %}{% if tools %}{{ prefix + '[' + calls }}{% endif %}": "apertus",
    "{% if tools %}function descriptions<|role_sep|>{{ tools }}{% endif %}function call<|role_sep|>": "gigachat-3",
    "{% if tools %}function descriptions<|role_sep|>{{ tools }}{% endif %}<|function_call|>": "gigachat-3.1",
    "{% if tools %}<function name=\"f\"><param name=\"a\">1</param></function>{% endif %}": "minicpm5",
    "{% if tools %}{{ '<tool_call{}>'.format(':opensource') + name + '<tool_sep{}>' }}{% endif %}": "hy3",
    "{% if tools %}<tool_call:opensource>{{ name }}<tool_sep:opensource><arg_key:opensource>{% endif %}": "hy3",
    "{% if tools %}<|tool_call:begin|>{{ id }}<|tool_call:name|>{{ name }}{% endif %}": "solar-open",
    "{% macro open_tag(t) %}<|open|>{{ t }}{% endmacro %}<|close|><|end_of_msg|>{{ tools }}": "kimi-k3",
    "{% if tools %}<|tool_calls_section_begin|>{{ calls }}{% endif %}": "kimi-k2",
    "{% if tools %}```tool_code\n{{ calls }}{% endif %}": "gemma",
    "{% for tool in tools %}{% endfor %}<start_function_call>call:{{ name }}": "functiongemma",
    "{% for tool in tools %}{% endfor %}{{ '<|tool_call>call:' + name }}": "gemma-4",
    "{% if tools %}<atem:function_calls>{% endif %}<|start|>assistant to=user<|message|>": "muse-glimmer",
    "<|start|>assistant<|channel|>final<|message|>{{ content }}": "harmony",
    "{% if tools %}{{ tools | tojson }}{% endif %}": "json",
    CHATML: "json",
}  # fmt: skip


@pytest.mark.parametrize(("template", "format"), FRAGMENTS.items())
def test_a_family_is_recognised_by_its_templates_marks(template: str, format: str) -> None:
    assert detect_format(template).name == format


def test_every_detection_rule_has_a_template_fragment() -> None:
    assert {signature.format for signature in SIGNATURES} | {"json"} == set(FRAGMENTS.values()) == set(FORMATS)


@pytest.mark.parametrize("marks", REASONING)
def test_reasoning_is_recognised_by_either_mark(marks: ReasoningMarks) -> None:
    assert detect_reasoning(f"{{{{ content.split('{marks.end}')[-1] }}}}") == marks
    assert detect_reasoning(f"<|assistant|>{marks.start}\n") == marks
    assert detect_reasoning(CHATML) is None


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ("{% set begin, end = '<think{}>'.format(':opensource'), '</think{}>'.format(':opensource') %}", HY3.end),
        ("{% macro open_tag(t) %}<|open|>{{ t }}<|sep|>{% endmacro %}{{ open_tag('think') }}", KIMI_K3.end),
    ],
)
def test_reasoning_marks_are_recognised_where_a_template_concatenates_them(template: str, end: str) -> None:
    found = detect_reasoning(template)
    assert found is not None
    assert found.end == end


def test_a_template_without_tool_support_is_recognised() -> None:
    assert not knows_tools(CHATML)
    assert knows_tools("{% if tools %}{% endif %}")


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("<|im_start|>assistant\n", ""),
        ("<think>a</think><|im_start|>assistant\n", ""),
    ],
)
def test_a_prompt_that_ends_with_a_mark_opens_it(prompt: str, opened: str) -> None:
    assert opened_by(prompt, ["<think>", ""]) == opened


def test_without_marks_and_tools_all_output_is_text() -> None:
    assert isinstance(choose_parser(OutputFormat(), CHATML, None).create_parser(), PlainText)
    assert isinstance(choose_parser(OutputFormat("hermes"), CHATML, None).create_parser(), PlainText)


def test_a_template_may_need_a_parser_without_tools() -> None:
    template = "<|start|>assistant<|channel|>final<|message|>"
    choice = choose_parser(OutputFormat(), template, None)
    assert isinstance(choice.create_parser(), CompletionParser)
    assert {"<|channel|>", "<|message|>", "<|end|>"} <= set(choice.marks)


def test_settings_override_the_template() -> None:
    template = "{% if tools %}<tool_call>{% endif %}</think>"
    choice = choose_parser(OutputFormat("mistral", "<x>", "</x>"), template, TOOLS)
    assert (choice.format, choice.reasoning) == (FORMATS["mistral"], ReasoningMarks("<x>", "</x>"))
    assert {"[TOOL_CALLS]", "<x>", "</x>"} <= set(choice.marks)
    assert choose_parser(OutputFormat(reasoning_start=""), template, TOOLS).reasoning is None
    half = choose_parser(OutputFormat(reasoning_end="</y>"), template, TOOLS)
    assert half.reasoning == ReasoningMarks("<think>", "</y>")


def test_parsing_continues_where_the_prompt_ends() -> None:
    choice = choose_parser(OutputFormat(), "{% if tools %}<tool_call>{% endif %}</think>", TOOLS)
    assert after_prompt(choice, "a<think>\n").opened == "<think>"
    assert after_prompt(choice, "what does <tool_call>").opened == ""
    functionary = choose_parser(OutputFormat("functionary-v3.2"), CHATML, TOOLS)
    assert after_prompt(functionary, "<|start|>\n>>>").opened == ">>>"
