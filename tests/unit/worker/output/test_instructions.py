"""Chats with tools, for templates that do not support them."""

from typing import Any

from atelier.submission import Tool, ToolChoice, Tools
from worker.output.completion_parser import CompletionParser
from worker.output.family_table import FORMATS
from worker.output.toolless_templates import AFTER, as_plain_chat, describe

TOOLS = Tools([Tool("now", "The time."), Tool("f")])
CALL = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": '{"zone": "UTC"}'}}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_a_chat_without_tools_is_unchanged() -> None:
    chat = [{"role": "system", "content": "Be brief."}, user("a"), user("b")]
    assert as_plain_chat(chat, None, has_system=True) == chat


def test_the_system_message_ends_with_the_tools() -> None:
    chat = as_plain_chat([{"role": "system", "content": "Be brief."}, user("a")], TOOLS, has_system=True)
    assert chat == [{"role": "system", "content": f"Be brief.\n\n{describe(TOOLS)}"}, user("a")]
    assert describe(TOOLS).endswith(AFTER)
    assert '"name": "now", "description": "The time."' in describe(TOOLS)


def test_a_chat_without_a_system_message_gets_one_or_the_user_message_describes_the_tools() -> None:
    assert as_plain_chat([user("a")], TOOLS, has_system=True)[0] == {"role": "system", "content": describe(TOOLS)}
    assert as_plain_chat([user("a")], TOOLS, has_system=False) == [user(f"{describe(TOOLS)}\n\na")]


def test_only_tools_that_may_be_called_are_described() -> None:
    named = Tools(TOOLS.tools, ToolChoice.NAMED, "f")
    assert '"now"' not in describe(named)


def test_calls_and_their_results_become_messages_in_turns() -> None:
    second = {**CALL, "id": "c2", "function": {"name": "f", "arguments": "{}"}}
    chat = [
        user("When?"),
        {"role": "assistant", "content": None, "tool_calls": [CALL, second]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "7"}]},
        user("And then?"),
    ]
    plain = as_plain_chat(chat, None, has_system=True)
    assert [message["role"] for message in plain] == ["user", "assistant", "user"]
    assert plain[1]["content"] == '{"name": "now", "arguments": {"zone": "UTC"}}\n{"name": "f", "arguments": {}}'
    assert plain[2] == user("The function now returned:\nnoon\n\nThe function f returned:\n7\n\nAnd then?")
    assert "tool_calls" not in plain[1]


def test_calls_are_written_as_they_are_read() -> None:
    chat = as_plain_chat([{"role": "assistant", "content": "", "tool_calls": [CALL]}], None, has_system=True)
    parts = CompletionParser(FORMATS["json"], None, TOOLS).push(chat[0]["content"])
    assert [getattr(part, "name", "") for part in parts][:1] == ["now"]


def test_malformed_messages_raise_no_error() -> None:
    odd: list[dict[str, Any]] = [
        {"role": "tool"},
        {"role": "assistant", "tool_calls": [1, {"function": 2}, {"function": {"arguments": "["}}]},
        {"role": "assistant", "tool_calls": "x", "content": 3},
    ]
    assert len(as_plain_chat(odd, TOOLS, has_system=True)) == 4
