"""Chats for templates with strict rules about turns."""

from typing import Any

import pytest

from atelier.errors import InvalidTemplate
from atelier.templates.chat_template import ChatTemplate

WRITES = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
FIRST_SYSTEM = (
    "{% for m in messages[1:] %}{% if m.role == 'system' %}{{ raise_exception('not first') }}{% endif %}{% endfor %}"
)
TURNS = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}"
    "{% endif %}{% endfor %}"
)


def said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def render(source: str, *messages: dict[str, Any]) -> str:
    return ChatTemplate(source + WRITES).render(list(messages), bos="", eos="")


def test_a_chat_that_the_template_accepts_is_unchanged() -> None:
    assert render("", said("system", "s"), said("user", "a"), said("user", "b")) == "s:s;u:a;u:b;"


def test_consecutive_messages_are_merged_for_a_template_that_requires_alternating_turns() -> None:
    chat = (said("user", "a"), said("user", "b"), said("assistant", "c"), said("assistant", "d"), said("user", "e"))
    assert render(TURNS, *chat) == "u:a\n\nb;a:c\n\nd;u:e;"


def test_a_system_message_is_merged_into_the_user_turn_for_a_template_without_one() -> None:
    assert render(NO_SYSTEM + TURNS, said("system", "s"), said("user", "a")) == "u:s\n\na;"


def test_only_later_system_messages_are_merged_for_a_template_that_accepts_the_first() -> None:
    chat = (said("system", "s"), said("user", "a"), said("system", "t"))
    assert render(FIRST_SYSTEM, *chat) == "s:s;u:a\n\nt;"


def test_initial_system_messages_are_merged_for_a_template_that_accepts_one() -> None:
    assert render(FIRST_SYSTEM, said("system", "s"), said("system", "t"), said("user", "a")) == "s:s\n\nt;u:a;"


def test_a_chat_that_cannot_be_adapted_is_rejected_with_the_templates_own_message() -> None:
    with pytest.raises(InvalidTemplate, match="turns"):
        render(TURNS, said("assistant", "a"), said("user", "b"))


LAST_ONLY = (
    "{% for m in messages %}{% if m.role == 'user' %}u:"
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}|{% endif %}{{ m.content }};"
    "{% elif m.role == 'tool' %}t:{{ m.content }};{% endif %}{% endfor %}"
)


def test_a_system_message_lost_after_a_tool_result_is_placed_as_without_the_result() -> None:
    chat = [said("system", "s-words"), said("user", "a"), said("user", "b")]
    called = {**said("assistant", ""), "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {}}}]}
    template = ChatTemplate(LAST_ONLY)
    assert template.render(chat, bos="", eos="") == "u:a;u:s-words|b;"
    assert template.render([*chat, called, said("tool", "r")], bos="", eos="") == "u:a;u:s-words\n\nb;t:r;"


def test_a_system_message_that_a_template_rewrites_does_not_count_as_lost() -> None:
    chat = [said("system", "Words"), said("user", "a"), said("tool", "r")]
    source = "{{ messages[0].content | lower }};{{ messages[1].content }}"
    assert ChatTemplate(source).render(chat, bos="", eos="") == "words;a"
