"""Answers that continue the assistant's last message, in every dialect: the reply is what the model adds."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import lmstudio
import pytest

from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import RunningGateway, events_of, running_gateway
from tests.support.gateway.scripted_turns import ANSWERS, READS, follow, messages_of
from tests.support.gateway.sdk_client import with_client
from tests.support.mcp.mcp_client import mcp_client
from tests.support.mcp.tool_server import ToolServer
from worker.engine.interface import ChatPrompt

USER = {"role": "user", "content": "one two three"}
ANSWER = {"role": "assistant", "content": "one two"}
CHAT = {"model": KEY, "messages": [USER, ANSWER]}
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
LMSTUDIO = "/api/v1/chat"
REST = " three"


def openai_text(events: list[Any]) -> str:
    chunks = [choice["delta"] for event in events if event != "[DONE]" for choice in event["choices"]]
    return "".join(delta.get("content") or "" for delta in chunks)


def anthropic_text(events: list[Any]) -> str:
    return "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")


def delta_text(kind: str, field: str) -> Callable[[list[Any]], str]:
    return lambda events: "".join(event[field] for event in events if event["type"] == kind)


DIALECTS: dict[str, tuple[str, dict[str, Any], Callable[[Any], str], Callable[[list[Any]], str]]] = {
    "openai": (
        "/v1/chat/completions",
        {**CHAT, **CONTINUE},
        lambda reply: reply["choices"][0]["message"]["content"],
        openai_text,
    ),
    "lmstudio_v0": (
        "/api/v0/chat/completions",
        CHAT,
        lambda reply: reply["choices"][0]["message"]["content"],
        openai_text,
    ),
    "lmstudio_v1": (
        LMSTUDIO,
        {
            "model": KEY,
            "input": [
                {"type": "message", "content": "one two three"},
                {"type": "message", "role": "assistant", "content": "one two"},
            ],
        },
        lambda reply: reply["output"][0]["content"],
        delta_text("message.delta", "content"),
    ),
    "responses": (
        "/v1/responses",
        {"model": KEY, "input": [USER, {**ANSWER, "type": "message", "status": "incomplete"}]},
        lambda reply: reply["output"][0]["content"][0]["text"],
        delta_text("response.output_text.delta", "delta"),
    ),
    "anthropic": (
        "/v1/messages",
        {**CHAT, "max_tokens": 9},
        lambda reply: reply["content"][0]["text"],
        anthropic_text,
    ),
    "ollama": (
        "/api/chat",
        CHAT,
        lambda reply: reply["message"]["content"],
        lambda lines: "".join(line["message"]["content"] for line in lines),
    ),
}


async def posted(gateway: RunningGateway, path: str, body: Any) -> httpx.Response:
    async with gateway.client() as http:
        return await http.post(path, json=body)


async def replied(gateway: RunningGateway, path: str, body: Any) -> Any:
    reply = await posted(gateway, path, body)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_reply_is_the_continuation_alone_whole_and_streamed(
    gateway: RunningGateway, registry: FakeRegistry, dialect: str
) -> None:
    path, body, text_of, streamed_text_of = DIALECTS[dialect]
    requests = await follow(registry, {"reasoning": "only before the answer"})
    assert text_of(await replied(gateway, path, {**body, "stream": False})) == REST
    stream = await posted(gateway, path, {**body, "stream": True})
    lines = [json.loads(line) for line in stream.text.splitlines()] if dialect == "ollama" else events_of(stream.text)
    assert streamed_text_of(lines) == REST
    assert [messages_of(request) for request in requests] == [[USER, ANSWER]] * 2


async def test_openais_chat_begins_a_message_unless_the_request_says_otherwise(gateway: RunningGateway) -> None:
    path, _, text_of, _ = DIALECTS["openai"]
    assert text_of(await replied(gateway, path, CHAT)) == "one two three"
    assert text_of(await replied(gateway, path, {**CHAT, "continue_final_message": False})) == "one two three"


async def test_lm_studios_older_chat_begins_a_message_on_request(gateway: RunningGateway) -> None:
    path, _, text_of, _ = DIALECTS["lmstudio_v0"]
    assert text_of(await replied(gateway, path, {**CHAT, "continue_final_message": False})) == "one two three"
    assert text_of(await replied(gateway, path, {**CHAT, "add_generation_prompt": True})) == "one two three"


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({}, "user: one two three\nassistant: one two\nassistant:"),
        (CONTINUE, "user: one two three\nassistant: one two"),
        ({"add_generation_prompt": False}, "user: one two three\nassistant: one two"),
    ],
)
async def test_the_prompt_is_shown_as_it_will_be(gateway: RunningGateway, fields: Any, prompt: str) -> None:
    assert (await replied(gateway, "/apply-template", {**CHAT, **fields})) == {"prompt": prompt}


async def test_the_tokens_of_a_prefilled_message_are_counted_as_they_are_computed(gateway: RunningGateway) -> None:
    counted = await replied(gateway, "/v1/messages/count_tokens", CHAT)
    message = await replied(gateway, "/v1/messages", {**CHAT, "max_tokens": 9})
    assert counted["input_tokens"] == message["usage"]["input_tokens"] == 5


async def test_the_sdks_chat_is_continued(gateway: RunningGateway) -> None:
    def respond(client: lmstudio.Client) -> str:
        chat = lmstudio.Chat.from_history({"messages": [USER, ANSWER]})
        return client.llm.model(KEY).respond(chat).content

    assert await with_client(gateway, respond) == REST


async def test_the_mcp_tool_continues_on_request(gateway: RunningGateway) -> None:
    async with mcp_client(gateway.url) as mcp:
        begun = await mcp.call_tool("chat", CHAT)
        continued = await mcp.call_tool("chat", {**CHAT, "continue_final_message": True})
        refused = await mcp.call_tool("chat", {"model": KEY, "prompt": "hi", "continue_final_message": True})
    assert (begun.structured_content["text"], continued.structured_content["text"]) == ("one two three", REST)
    assert refused.is_error


async def test_a_stored_chat_has_the_prefilled_answer_and_its_continuation_as_one_message(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    requests = await follow(registry, {})
    first = await replied(gateway, LMSTUDIO, DIALECTS["lmstudio_v1"][1])
    await replied(gateway, LMSTUDIO, {"model": KEY, "input": "more", "previous_response_id": first["response_id"]})
    whole = {"role": "assistant", "content": "one two three"}
    assert messages_of(requests[-1]) == [USER, whole, {"role": "user", "content": "more"}]


async def test_a_stored_answer_is_continued_as_often_as_requested(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    requests = await follow(registry, {"text": "a b c d"})
    reply = await replied(gateway, LMSTUDIO, {"model": KEY, "input": "go", "max_output_tokens": 1})
    texts = [reply["output"][0]["content"]]
    for _ in range(3):
        go_on = {
            "model": KEY,
            "input": [{"type": "message", "role": "assistant", "content": ""}],
            "max_output_tokens": 1,
            "previous_response_id": reply["response_id"],
        }
        reply = await replied(gateway, LMSTUDIO, go_on)
        texts.append(reply["output"][0]["content"])
    assert texts == ["a", " b", " c", " d"]
    assert messages_of(requests[-1]) == [{"role": "user", "content": "go"}, {"role": "assistant", "content": "a b c"}]


async def test_a_stored_response_that_was_cut_off_is_continued_without_new_input(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    requests = await follow(registry, {"text": "a b c"})
    asked = {"model": KEY, "input": "go", "max_output_tokens": 1}
    reply = await replied(gateway, "/v1/responses", asked)
    assert reply["status"] == "incomplete"
    resumed = {"model": KEY, "input": [], "previous_response_id": reply["id"]}
    reply = await replied(gateway, "/v1/responses", resumed)
    assert (reply["status"], reply["output"][0]["content"][0]["text"]) == ("completed", " b c")
    again = {"model": KEY, "input": "more", "previous_response_id": reply["id"]}
    await replied(gateway, "/v1/responses", again)
    answer = {"role": "assistant", "content": "a b c"}
    assert messages_of(requests[-1])[:2] == [{"role": "user", "content": "go"}, answer]


async def test_a_message_that_is_continued_may_call_servers_tools(registry: FakeRegistry, server: ToolServer) -> None:
    requests = await follow(registry, {**READS, "text": " I look."}, ANSWERS)
    tool = {"type": "mcp", "server_label": "notes", "server_url": server.url, "require_approval": "never"}
    body = {**CHAT, **CONTINUE, "tools": [tool]}
    async with running_gateway(registry, mcp_requests=True, outbound_hosts=["127.0.0.1"]) as gateway:
        reply = await replied(gateway, "/v1/chat/completions", body)
    assert reply["choices"][0]["message"]["content"] == " I look.It is blue."
    first, second = requests
    assert isinstance(first.prompt, ChatPrompt)
    assert messages_of(first) == [USER, ANSWER]
    asked, called, result = messages_of(second)
    assert (asked, called["content"], result["role"]) == (USER, "one two I look.", "tool")
    assert len(called["tool_calls"]) == 1


CALLS = [{"type": "function", "id": "c", "function": {"name": "f", "arguments": "{}"}}]
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": ""}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {**CHAT, **CONTINUE, "add_generation_prompt": True}, "add_generation_prompt"),
        ("/v1/chat/completions", {**CONTINUE, "model": KEY, "messages": [USER]}, "messages"),
        (
            "/v1/chat/completions",
            {**CONTINUE, "model": KEY, "messages": [USER, {**ANSWER, "tool_calls": CALLS}]},
            "messages",
        ),
        (
            "/v1/chat/completions",
            {**CHAT, "chat_template_kwargs": {"continue_final_message": True}},
            "chat_template_kwargs.continue_final_message",
        ),
        ("/api/v0/chat/completions", {"model": KEY, "messages": [USER, {**ANSWER, "tool_calls": CALLS}]}, "messages"),
        (LMSTUDIO, {"model": KEY, "input": [{"type": "text", "role": "assistant", "content": "a"}]}, "input"),
        (
            LMSTUDIO,
            {"model": KEY, "input": [{"type": "text", "role": "assistant", "content": "a"}, {"type": "text"}]},
            "input[0].role",
        ),
        (
            LMSTUDIO,
            {"model": KEY, "input": [{"type": "text", "content": "a"}, {"type": "image", "role": "assistant"}]},
            "input[1].type",
        ),
    ],
)
async def test_what_cannot_be_continued_is_an_error_that_names_the_field(
    gateway: RunningGateway, path: str, body: Any, param: str
) -> None:
    reply = await posted(gateway, path, body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("turn", "fields", "fault"),
    [
        ("one ", {}, "white space"),
        ([THOUGHT], {}, "must not be thinking"),
        ("one", {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000}, "thinking"),
        ("one", {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, "format"),
        ([{"type": "tool_use", "id": "t", "name": "f", "input": {}}], {}, "tool calls"),
    ],
)
async def test_anthropics_api_rejects_the_same_last_turns(
    gateway: RunningGateway, turn: Any, fields: Any, fault: str
) -> None:
    body = {"model": KEY, "messages": [USER, {"role": "assistant", "content": turn}], "max_tokens": 9, **fields}
    reply = await posted(gateway, "/v1/messages", body)
    assert reply.status_code == 400
    assert fault in reply.json()["error"]["message"]


async def test_a_thought_before_the_text_may_be_sent_with_thinking_on(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    requests = await follow(registry, {})
    turn = {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "one"}]}
    on = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000}
    message = await replied(gateway, "/v1/messages", {"model": KEY, "messages": [USER, turn], **on})
    assert message["content"][0]["text"] == " two three"
    assert messages_of(requests[0])[-1] == {"role": "assistant", "content": "one", "reasoning_content": "Hm."}
