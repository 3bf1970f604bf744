"""OpenAI's responses: a request's items as they are stored, and as chat templates take them."""

from typing import Any

import orjson
import pytest

from atelier.errors import InvalidRequest
from atelier.generation_types import ToolCallPiece
from atelier.submission import ToolChoice
from gateway.core.events import Delta, Reasoning, ToolCallDelta
from gateway.dialects.body import parse
from gateway.dialects.responses.conversation_prompt import chat_messages
from gateway.dialects.responses.response_items import input_item_id, new_response_id, output_item_id, response_of
from gateway.dialects.responses.response_turn import response_call, response_tools
from gateway.dialects.responses.responses_requests import ResponseBody
from gateway.dialects.responses.responses_routes import page
from gateway.dialects.responses.responses_stream import Output
from gateway.dialects.responses.stored_items import input_items

CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
TOOLS = [{"type": "function", "name": name} for name in ("f", "g")]


def body(**fields: Any) -> ResponseBody:
    return parse(orjson.dumps({"model": "m", "input": "hi", **fields}), ResponseBody)


def items(*given: Any) -> list[Any]:
    return input_items(body(input=list(given)).input, "resp_1", {})


def messages(*given: Any, instructions: str | None = None) -> list[Any]:
    return chat_messages(instructions, items(*given))


def thought(text: str) -> Any:
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}


def test_text_becomes_a_user_message() -> None:
    [item] = input_items("hi", "resp_1", {})
    assert (item["role"], item["content"], item["id"]) == (
        "user",
        [{"type": "input_text", "text": "hi"}],
        "msg_1i0",
    )


def test_an_item_keeps_its_id_and_items_without_one_get_one() -> None:
    ids = [item["id"] for item in items({"role": "user", "content": "a"}, {**CALL, "id": "fc_mine"}, thought("x"))]
    assert ids == ["msg_1i0", "fc_mine", "rs_1i2"]


def test_an_items_id_contains_its_responses_id() -> None:
    response_id = new_response_id()
    assert response_of(input_item_id(response_id, "function_call_output", 12)) == response_id
    assert response_of(output_item_id(response_id, "reasoning", 0)) == response_id
    assert [response_of(id) for id in ("msg_1", "", "x" * 500, response_id)] == [None] * 4


def test_parts_are_joined_and_the_developer_role_becomes_system() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert messages({"role": "developer", "content": parts}, instructions="Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "a\nb"},
    ]


def test_an_assistant_message_may_be_a_refusal() -> None:
    parts = [{"type": "output_text", "text": "a", "annotations": []}, {"type": "refusal", "refusal": "no"}]
    assert messages({"type": "message", "role": "assistant", "content": parts}) == [
        {"role": "assistant", "content": "a\nno"}
    ]


def test_calls_belong_to_the_message_before_them() -> None:
    [said] = messages({"role": "assistant", "content": "wait"}, CALL, {**CALL, "call_id": "c2"})
    assert said["content"] == "wait"
    assert [call["id"] for call in said["tool_calls"]] == ["c1", "c2"]


def test_reasoning_belongs_to_the_item_that_follows_it() -> None:
    said, called, answered = messages(
        thought("one"), {"role": "assistant", "content": "a"}, thought("two"), CALL, {"role": "user", "content": "b"}
    )
    assert (said["reasoning_content"], called["reasoning_content"]) == ("one", "two")
    assert called["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert answered == {"role": "user", "content": "b"}


CUT_OFF = {"role": "assistant", "content": "one", "status": "incomplete"}


def test_a_text_that_was_cut_off_and_the_text_that_follows_are_one_message() -> None:
    rest = {"role": "assistant", "content": " two"}
    assert messages(CUT_OFF, rest) == [{"role": "assistant", "content": "one two"}]
    again = {**rest, "status": "incomplete"}
    assert messages(CUT_OFF, again, rest) == [{"role": "assistant", "content": "one two two"}]
    user = {"role": "user", "content": "go on"}
    assert messages(CUT_OFF, user, rest) == [{"role": "assistant", "content": "one"}, user, rest]
    assert messages({**rest, "status": "completed"}, rest) == [rest, rest]


def test_a_thought_that_was_cut_off_is_a_message_with_what_follows_it() -> None:
    cut_off = {**thought("so "), "status": "incomplete"}
    assert messages(cut_off) == [{"role": "assistant", "content": "", "reasoning_content": "so "}]
    whole = {"role": "assistant", "content": "one", "reasoning_content": "so far"}
    assert messages(cut_off, thought("far"), {"role": "assistant", "content": "one"}) == [whole]


def test_reasoning_that_nothing_follows_is_omitted() -> None:
    assert messages(thought("hm"), {"role": "user", "content": "b"}) == [{"role": "user", "content": "b"}]
    assert messages(thought("hm")) == []


def test_a_truncated_call_is_omitted() -> None:
    assert messages({"role": "user", "content": "a"}, {**CALL, "status": "incomplete", "arguments": '{"a'}) == [
        {"role": "user", "content": "a"}
    ]


def test_a_result_may_have_parts() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert messages({"type": "function_call_output", "call_id": "c1", "output": parts}) == [
        {"role": "tool", "tool_call_id": "c1", "content": "a\nb"}
    ]


def test_a_request_becomes_a_call() -> None:
    asked = body(max_output_tokens=5, temperature=0.5, top_k=3, seed=1, truncation="auto", ttl=60, preset="p")
    call = response_call(asked, input_items("hi", "resp_1", {}))
    assert call.settings == {
        "max_tokens": 5,
        "temperature": 0.5,
        "top_k": 3,
        "seed": 1,
        "context_overflow": "rollingWindow",
    }
    assert (call.ttl, call.preset, call.tools, call.constraint, call.logprobs) == (60, "p", None, None, None)


def test_max_tokens_and_context_overflow_have_other_names_in_responses() -> None:
    call = response_call(body(max_tokens=5, context_overflow="x"), input_items("hi", "resp_1", {}))
    assert call.settings == {}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, (["f", "g"], ToolChoice.AUTO, "")),
        ("auto", (["f", "g"], ToolChoice.AUTO, "")),
        ("required", (["f", "g"], ToolChoice.REQUIRED, "")),
        ({"type": "function", "name": "g"}, (["f", "g"], ToolChoice.NAMED, "g")),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]},
            (["g"], ToolChoice.REQUIRED, ""),
        ),
    ],
)
def test_tool_choice_is_converted(choice: Any, expected: Any) -> None:
    tools = response_tools(body(tools=TOOLS, tool_choice=choice, parallel_tool_calls=False))
    assert tools
    assert ([tool.name for tool in tools.tools], tools.choice, tools.name) == expected
    assert tools.one_at_a_time


def test_tools_that_may_not_be_called_are_omitted() -> None:
    assert response_tools(body(tools=TOOLS, tool_choice="none")) is None
    assert response_tools(body(tools=[])) is None


def kinds(events: list[Any]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_an_event_of_another_kind_closes_an_item() -> None:
    output = Output("resp_1")
    first = ToolCallDelta(0, ToolCallPiece(0, "c0", "f", "{"))
    assert kinds(output.take(Delta(0, "a"))) == ["output_item.added", "content_part.added", "output_text.delta"]
    assert kinds(output.take(Delta(0, "b"))) == ["output_text.delta"]
    assert kinds(output.take(first)) == [
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta"),
    ]
    assert kinds(output.take(ToolCallDelta(0, ToolCallPiece(1, "c1", "g")))) == [
        *("function_call_arguments.done", "output_item.done"),
        "output_item.added",
    ]
    output.take(Reasoning(0, "hm"))
    output.take(Delta(0, "c"))
    output.end("incomplete")
    assert [(item["type"], item["status"]) for item in output.items] == [
        ("message", "completed"),
        ("function_call", "completed"),
        ("function_call", "completed"),
        ("reasoning", "completed"),
        ("message", "incomplete"),
    ]
    assert len({item["id"] for item in output.items}) == 5


def test_an_added_item_is_reported_in_its_state_at_that_time() -> None:
    output = Output("resp_1")
    added = output.take(Delta(0, "a"))[0]["item"]
    output.end("completed")
    assert (added["status"], added["content"]) == ("in_progress", [])


LIST = [{"id": str(number)} for number in range(5)]


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ({}, "43210", False),
        ({"order": "asc"}, "01234", False),
        ({"order": "asc", "limit": "2"}, "01", True),
        ({"order": "asc", "limit": "2", "after": "2"}, "34", False),
        ({"after": "3", "limit": "2"}, "21", True),
        ({"after": "0"}, "", False),
    ],
)
def test_a_page_continues_after_an_item(query: dict[str, str], ids: str, more: bool) -> None:
    shown = page(LIST, query)
    assert ("".join(item["id"] for item in shown["data"]), shown["has_more"]) == (ids, more)
    assert (shown["first_id"], shown["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "", "٣", "9" * 5000])
def test_the_size_of_a_page_is_limited(limit: str) -> None:
    with pytest.raises(InvalidRequest):
        page(LIST, {"limit": limit})
