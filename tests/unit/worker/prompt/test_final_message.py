"""A chat whose last message is continued: the prompt ends within that message, by templates of every style."""

from collections.abc import Sequence
from typing import Any

import pytest

from atelier.errors import InvalidRequest, InvalidTemplate
from atelier.json_types import Json
from atelier.prompt_end import PromptEnd, check_final_message, end_after
from atelier.submission import OutputFormat
from atelier.templates.chat_template import ChatTemplate
from worker.engine.interface import ChatPrompt
from worker.engine.prompt.final_message import OpenPrompt, continued_part, settled, thought_marks
from worker.output.completion_parts import AnswerText, Reasoning
from worker.output.parser_choice import choose_parser


def template(answer: str, generation: str, turn: str = "<u>{{ m.content }}</u>") -> str:
    """A template that writes the assistant's messages so, and this generation prompt."""
    return (
        "{% for m in messages %}{% if m.role == 'assistant' %}" + answer + "{% else %}" + turn + "{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}" + generation + "{% endif %}"
    )


WITH_THOUGHT = (
    "<a>\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content | trim }}\n</think>\n\n{% endif %}"
    "{{ m.content }}</a>\n"
)
CHATML = template("<a>\n{{ m.content | trim }}</a>\n", "<a>\n")
THINKS = template(WITH_THOUGHT, "<a>\n")
EMPTY_THOUGHT = template(
    "<a>\n<think>\n{{ (m.reasoning_content or '') | trim }}\n</think>\n\n{{ m.content }}</a>\n", "<a>\n<think>\n"
)
OPENS_AND_DROPS = template("<a>{{ m.content.split('</think>')[-1] }}</a>", "<a><think>\n")
SWITCHED = template("<a></think>{{ m.content }}</a>", "<a>{% if thinking %}<think>{% else %}<think></think>{% endif %}")
DROPS = template("<a>{{ m.content.split('</think>')[-1].split('<think>\\n')[-1] }}</a>", "<a>")
STEPS = template(
    "<a>\n{% if m.reasoning_content %}{{ m.reasoning_content }}\n[BEGIN FINAL RESPONSE]\n{% endif %}{{ m.content }}\n",
    "<a>\nHere are my reasoning steps:\n",
)
IN_THOUGHT = template("<a>\n<think>\n{{ m.content }}\n</a>\n", "<a>\n<think>\n")
MESSAGES = template(
    "<|start|>assistant{% if m.reasoning_content %}<|channel|>analysis<|message|>{{ m.reasoning_content }}<|end|>"
    "<|start|>assistant{% endif %}<|channel|>final<|message|>{{ m.content }}<|return|>",
    "<|start|>assistant",
)
RECIPIENTS = template("<a>\n>>>all\n{{ m.content }}</a>", "<a>\n>>>{# recipient #}")
SPACED = template("Assistant: {{ m.content }}\n\n", "Assistant:")
ALWAYS_BEGINS = template("<a>{{ m.content }}</a>", "") + "<a>"
AFTERWORD = (
    template("<a>{{ m.content }}</a>", "<a>") + "{% if not add_generation_prompt %}<s>Call a tool.</s>{% endif %}"
)
TYPED = template(
    "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{% if p.type == 'thinking' %}[THINK]"
    "{{ p.thinking }}[/THINK]{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}</a>",
    "",
)
REFUSES = template("{{ raise_exception('the last message must be a user message') }}", "<a>")
LEAVES_OUT = template("{% if not loop.last %}{{ m.content }}{% endif %}", "<a>")

SHUT = "<u>hi</u>"
ANSWERS = [  # template, last message, the prompt after the user's turn
    (CHATML, {"content": "Sure, "}, "<a>\nSure, "),
    (CHATML, {"content": "\n Sure"}, "<a>\n\n Sure"),
    (CHATML, {"content": [{"type": "text", "text": "Su"}, {"type": "text", "text": "re"}]}, "<a>\nSure"),
    (THINKS, {"content": "Sure"}, "<a>\nSure"),
    (THINKS, {"content": "Sure", "reasoning_content": "Hm."}, "<a>\n<think>\nHm.\n</think>\n\nSure"),
    (THINKS, {"content": "<think>\nHm.\n</think>\n\nSure"}, "<a>\n<think>\nHm.\n</think>\n\nSure"),
    (THINKS, {"content": "<think></think>"}, "<a>\n"),
    (THINKS, {"content": "<think>Hm.</think>"}, "<a>\n<think>\nHm.\n</think>\n\n"),
    (EMPTY_THOUGHT, {"content": "Sure"}, "<a>\n<think>\n\n</think>\n\nSure"),
    (OPENS_AND_DROPS, {"content": "Sure"}, "<a>Sure"),
    (OPENS_AND_DROPS, {"content": "Sure", "reasoning_content": "Hm."}, "<a><think>\nHm.\n</think>\n\nSure"),
    (SWITCHED, {"content": "Sure"}, "<a></think>Sure"),
    (DROPS, {"content": "Sure", "reasoning_content": "Hm."}, "<a><think>\nHm.\n</think>\n\nSure"),
    (STEPS, {"content": "Sure", "reasoning_content": "Hm."}, "<a>\nHm.\n[BEGIN FINAL RESPONSE]\nSure"),
    (IN_THOUGHT, {"content": "Sure"}, "<a>\n<think>\n\n</think>\n\nSure"),
    (MESSAGES, {"content": "Sure"}, "<|start|>assistant<|channel|>final<|message|>Sure"),
    (
        MESSAGES,
        {"content": "Sure", "reasoning_content": "Hm."},
        "<|start|>assistant<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Sure",
    ),
    (RECIPIENTS, {"content": "Sure"}, "<a>\n>>>all\nSure"),
    (SPACED, {"content": "Sure"}, "Assistant: Sure"),
    (SPACED, {"content": " Sure"}, "Assistant: Sure"),
    (ALWAYS_BEGINS, {"content": "Sure"}, "<a>Sure"),
    (AFTERWORD, {"content": "Sure"}, "<a>Sure"),
    (TYPED, {"content": "Sure", "reasoning_content": "Hm."}, "[THINK]Hm.[/THINK]Sure"),
]  # fmt: skip
THOUGHTS = [
    (THINKS, "<a>\n<think>\n"),
    (EMPTY_THOUGHT, "<a>\n<think>\n"),
    (OPENS_AND_DROPS, "<a><think>\n"),
    (DROPS, "<a><think>\n"),
    (STEPS, "<a>\nHere are my reasoning steps:\n"),
    (IN_THOUGHT, "<a>\n<think>\n"),
    (MESSAGES, "<|start|>assistant<|channel|>analysis<|message|>"),
    (TYPED, "[THINK]"),
]


def settled_chat(source: str, *messages: Json) -> ChatPrompt:
    chat = ChatPrompt(list(messages), end=PromptEnd.CONTINUED_MESSAGE)
    return settled(chat, choose_parser(OutputFormat(), source, None).reasoning)


def prompt(source: str, message: Json, **arguments: Any) -> str:
    """The prompt of a chat that this message of the assistant's ends."""
    compiled = ChatTemplate(source)

    def render(messages: Sequence[Json], end: PromptEnd) -> str:
        return compiled.render(
            list(messages),
            bos="",
            eos="",
            arguments=arguments,
            generation_prompt=end is PromptEnd.NEW_MESSAGE,
        )

    chat = settled_chat(source, {"role": "user", "content": "hi"}, {"role": "assistant", **message})
    if chat.end is PromptEnd.NEW_MESSAGE:
        return render(chat.messages, chat.end)
    marks = thought_marks(choose_parser(OutputFormat(), source, None))
    return OpenPrompt(chat.messages, marks, source, render).text


@pytest.mark.parametrize(("source", "message", "expected"), ANSWERS)
def test_a_prompt_ends_with_the_continued_text_as_it_was_sent(source: str, message: Json, expected: str) -> None:
    assert prompt(source, message) == SHUT + expected


@pytest.mark.parametrize(("source", "opening"), THOUGHTS)
def test_a_prompt_ends_within_the_thought_of_a_message_without_text(source: str, opening: str) -> None:
    assert prompt(source, {"content": "", "reasoning_content": "So far "}) == f"{SHUT}{opening}So far "


def test_a_thought_in_the_text_that_has_not_ended_is_continued() -> None:
    assert prompt(THINKS, {"content": "<think>\nSo far "}) == f"{SHUT}<a>\n<think>\nSo far "


def test_text_after_an_ended_thought_in_the_content_is_the_answer_even_if_there_is_none_yet() -> None:
    chat = settled_chat(THINKS, {"role": "assistant", "content": "<think>Hm.</think>"})
    assert chat.messages == [{"role": "assistant", "content": "", "reasoning_content": "Hm."}]
    assert continued_part(chat) is AnswerText


@pytest.mark.parametrize("source", [CHATML, THINKS, OPENS_AND_DROPS, MESSAGES])
def test_an_empty_message_is_begun_by_the_model(source: str) -> None:
    begun = prompt(source, {"content": ""})
    assert begun == ChatTemplate(source).render([{"role": "user", "content": "hi"}], bos="", eos="")


@pytest.mark.parametrize(
    ("source", "reason"),
    [(REFUSES, "must be a user message"), (LEAVES_OUT, "does not write its text")],
)
def test_a_template_without_a_last_answer_is_an_error_that_says_so(source: str, reason: str) -> None:
    with pytest.raises(InvalidTemplate, match=reason):
        prompt(source, {"content": "Sure"})


@pytest.mark.parametrize("content", ["", "Sure"])
@pytest.mark.parametrize("source", [CHATML, SWITCHED])
def test_a_thought_that_the_template_does_not_write_is_an_error(source: str, content: str) -> None:
    with pytest.raises(InvalidTemplate, match="no reasoning here"):
        prompt(source, {"content": content, "reasoning_content": "Hm."})


def test_a_thought_is_continued_where_a_switch_turns_reasoning_on() -> None:
    thought = {"content": "", "reasoning_content": "Hm"}
    assert prompt(SWITCHED, thought, thinking=True) == f"{SHUT}<a><think>Hm"
    assert prompt(SWITCHED, {**thought, "content": "Sure"}, thinking=True) == f"{SHUT}<a><think>Hm</think>Sure"


def test_a_text_that_a_template_writes_twice_is_written_twice() -> None:
    twice = template("<!-- {{ m.content }} --><a>{{ m.content }}</a>", "<a>")
    assert prompt(twice, {"content": "Sure"}) == f"{SHUT}<!-- Sure --><a>Sure"


def test_what_is_continued_is_the_text_or_else_the_thought() -> None:
    said, thought = (
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "", "reasoning_content": "b"},
    )
    assert continued_part(settled_chat(THINKS, said)) is AnswerText
    assert continued_part(settled_chat(THINKS, thought)) is Reasoning
    assert continued_part(settled_chat(THINKS, {**said, "reasoning_content": "b"})) is AnswerText


def test_marks_of_reasoning_in_another_turn_are_no_concern() -> None:
    asked = {"role": "user", "content": "<think>"}
    assert settled_chat(THINKS, asked, {"role": "assistant", "content": "a"}).messages[0] == asked


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([], "must be the assistant's"),
        ([{"role": "user", "content": "hi"}], "must be the assistant's"),
        ([{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}], "tool calls"),
        ([{"role": "assistant", "content": [{"type": "image"}]}], "images"),
    ],
)
def test_what_no_template_can_continue_is_rejected(messages: list[Json], fault: str) -> None:
    with pytest.raises(InvalidRequest, match=fault) as error:
        check_final_message(messages, "input")
    assert error.value.param == "input"


def test_a_chat_ends_within_an_answer_in_dialects_that_continue_it() -> None:
    asked, said = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "a"}
    assert end_after([asked, said]) is PromptEnd.CONTINUED_MESSAGE
    assert end_after([asked]) is end_after([]) is PromptEnd.NEW_MESSAGE
