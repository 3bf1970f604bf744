"""Completions that continue a message: the parser begins within the part that the prompt ends with."""

import pytest

from atelier.submission import OutputFormat, Tool, Tools
from tests.support.gateway.completions import PlainPart, every_cut, parts_of
from worker.output.completion_parser import CompletionParser
from worker.output.completion_parts import AnswerText, PartType, PlainText, Reasoning
from worker.output.family_detection import REASONING
from worker.output.family_format import ReasoningMarks
from worker.output.family_table import FORMATS
from worker.output.parser_choice import ParserChoice, choose_parser, within

TOOLS = Tools([Tool("now")])
THINK = REASONING[0]
CALL = ("call", "now", "{}")
NOW = '{"name": "now", "arguments": {}}'
CHANNEL = "<|start|>assistant<|channel|>"


def continuing(format: str, part: PartType, reasoning: ReasoningMarks | None = None) -> CompletionParser:
    return CompletionParser(FORMATS[format], reasoning, TOOLS, continued=part)


CASES: list[tuple[str, PartType, str, list[PlainPart]]] = [
    ("hermes", AnswerText, f" look.\n<tool_call>\n{NOW}\n</tool_call>", [("text", " look."), CALL]),
    ("hermes", AnswerText, "<think>a</think>b", [("text", "<think>a</think>b")]),
    ("hermes", Reasoning, " so</think>\n\nYes", [("reasoning", " so"), ("text", "Yes")]),
    ("hermes", Reasoning, " and so on", [("reasoning", " and so on")]),
    ("hermes", Reasoning, f"</think><tool_call>{NOW}</tool_call>", [CALL]),
    ("hermes", Reasoning, f"<tool_call>{NOW}", [("reasoning", f"<tool_call>{NOW}")]),
    ("deepseek-v3.2", Reasoning, (
        'so\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="now">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>'
    ), [("reasoning", "so"), CALL]),
    ("llama3-json", AnswerText, NOW, [("text", NOW)]),
    ("llama3-json", AnswerText, f"<|python_tag|>{NOW}", [CALL]),
    ("pythonic", AnswerText, "[now()]", [("text", "[now()]")]),
    ("json", AnswerText, f" look: {NOW}", [("text", " look:"), CALL]),
    ("mistral", AnswerText, f" look.[TOOL_CALLS][{NOW}]", [("text", " look."), CALL]),
    ("functionary-v3.2", AnswerText, "\nlook\n>>>now\n{}", [("text", "\nlook"), CALL]),
    ("harmony", AnswerText, " look.<|return|>", [("text", " look.")]),
    ("harmony", AnswerText, (
        f" look.<|end|>{CHANNEL}commentary to=functions.now <|constrain|>json<|message|>{{}}<|call|>"
    ), [("text", " look."), CALL]),
    ("harmony", Reasoning, f" so<|end|>{CHANNEL}final<|message|>Yes<|return|>", [
        ("reasoning", " so"),
        ("text", "Yes"),
    ]),
    ("muse-glimmer", AnswerText, " look.<|eot|>more", [("text", " look.")]),
    ("muse-glimmer", Reasoning, " so<|eom|><|start|>assistant to=user<|message|>Yes<|eot|>", [
        ("reasoning", " so"),
        ("text", "Yes"),
    ]),
    ("gigachat-3.1", AnswerText, " look.<|message_sep|>user", [("text", " look.")]),
]  # fmt: skip


@pytest.mark.parametrize(("format", "part", "text", "expected"), CASES)
def test_the_rest_of_a_part_is_read_and_what_follows_it(
    format: str, part: PartType, text: str, expected: list[PlainPart]
) -> None:
    reasoning = THINK if part is Reasoning else None
    assert every_cut(lambda: continuing(format, part, reasoning), text) == expected


@pytest.mark.parametrize("format", FORMATS)
def test_white_space_at_the_beginning_of_the_continuation_is_part_of_the_text(format: str) -> None:
    for text in (" and more: 1 < 2.", "\n\nAnd more."):
        assert parts_of(continuing(format, AnswerText), [text]) == [("text", text)]


@pytest.mark.parametrize("format", FORMATS)
def test_white_space_at_the_beginning_of_the_continuation_is_part_of_the_thought(format: str) -> None:
    assert parts_of(continuing(format, Reasoning, THINK), [" and so"]) == [("reasoning", " and so")]


def test_reasoning_is_over_where_text_of_the_answer_is_continued() -> None:
    choice = choose_parser(OutputFormat(), "{{ '<think>' }}", None)
    assert choice.reasoning == THINK
    assert isinstance(within(choice, AnswerText).create_parser(), PlainText)
    assert within(choice, Reasoning).reasoning == THINK


def test_a_continued_answer_without_tools_of_a_family_with_marks_is_parsed() -> None:
    parser = within(ParserChoice(FORMATS["harmony"]), AnswerText).create_parser()
    assert parts_of(parser, [" look.", "<|return|>"]) == [("text", " look.")]
