"""Chats of templates that are strict about turns."""

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


def test_a_chat_is_left_as_it_is_where_the_template_takes_it() -> None:
    assert render("", said("system", "s"), said("user", "a"), said("user", "b")) == "s:s;u:a;u:b;"


def test_what_a_user_said_at_once_is_one_turn_where_a_template_wants_turns() -> None:
    chat = (said("user", "a"), said("user", "b"), said("assistant", "c"), said("assistant", "d"), said("user", "e"))
    assert render(TURNS, *chat) == "u:a\n\nb;a:c\n\nd;u:e;"


def test_a_system_message_is_the_first_of_what_the_user_says_where_a_template_takes_none() -> None:
    assert render(NO_SYSTEM + TURNS, said("system", "s"), said("user", "a")) == "u:s\n\na;"


def test_only_later_system_messages_are_the_user_s_where_a_template_takes_the_first() -> None:
    chat = (said("system", "s"), said("user", "a"), said("system", "t"))
    assert render(FIRST_SYSTEM, *chat) == "s:s;u:a\n\nt;"


def test_several_system_messages_at_the_beginning_are_one_where_a_template_takes_one() -> None:
    assert render(FIRST_SYSTEM, said("system", "s"), said("system", "t"), said("user", "a")) == "s:s\n\nt;u:a;"


def test_a_chat_that_cannot_be_turned_is_refused_with_the_template_s_own_words() -> None:
    with pytest.raises(InvalidTemplate, match="turns"):
        render(TURNS, said("assistant", "a"), said("user", "b"))


LAST_ONLY = (
    "{% for m in messages %}{% if m.role == 'user' %}u:"
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}|{% endif %}{{ m.content }};"
    "{% elif m.role == 'tool' %}t:{{ m.content }};{% endif %}{% endfor %}"
)


def test_a_system_message_that_is_lost_after_a_tool_s_result_stays_where_it_was_before_it() -> None:
    chat = [said("system", "s-words"), said("user", "a"), said("user", "b")]
    called = {**said("assistant", ""), "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {}}}]}
    template = ChatTemplate(LAST_ONLY)
    assert template.render(chat, bos="", eos="") == "u:a;u:s-words|b;"
    assert template.render([*chat, called, said("tool", "r")], bos="", eos="") == "u:a;u:s-words\n\nb;t:r;"


def test_a_system_message_whose_words_a_template_changes_is_not_lost() -> None:
    chat = [said("system", "Words"), said("user", "a"), said("tool", "r")]
    source = "{{ messages[0].content | lower }};{{ messages[1].content }}"
    assert ChatTemplate(source).render(chat, bos="", eos="") == "words;a"
