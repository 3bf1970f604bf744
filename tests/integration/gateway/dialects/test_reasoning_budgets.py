"""The budget of reasoning in every dialect: under each of its names it reaches the worker, and the reply obeys it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import RunningGateway, events_of
from tests.support.gateway.scripted_turns import follow
from tests.support.mcp.mcp_client import held_mcp_client
from worker.engine.interface import ChatPrompt, Request

SCRIPT = {"reasoning": "one two three four", "text": "done"}
HELLO = [{"role": "user", "content": "Hello"}]
CHAT: dict[str, Any] = {"model": KEY, "messages": HELLO}
V0, CHATS = "/api/v0/chat/completions", "/v1/chat/completions"
MESSAGES: dict[str, Any] = {**CHAT, "max_tokens": 50}
RESPONSE: dict[str, Any] = {"model": KEY, "input": "Hello"}
OLLAMA: dict[str, Any] = {**CHAT, "stream": False}

Said = tuple[str, str, int | None]
"""Reasoning, answer, and the count of the reasoning's tokens where the dialect has one."""


def of_chat(reply: Any) -> Said:
    message, details = reply["choices"][0]["message"], reply["usage"]["completion_tokens_details"]
    return message.get("reasoning_content", ""), message["content"], details["reasoning_tokens"]


def of_message(reply: Any) -> Said:
    parts = {block["type"]: block for block in reply["content"]}
    count = reply["usage"].get("output_tokens_details", {}).get("thinking_tokens", 0)
    return parts.get("thinking", {}).get("thinking", ""), parts["text"]["text"], count


def of_response(reply: Any) -> Said:
    parts = {item["type"]: item["content"][0]["text"] for item in reply["output"]}
    return parts.get("reasoning", ""), parts["message"], reply["usage"]["output_tokens_details"]["reasoning_tokens"]


def of_v1(reply: Any) -> Said:
    parts = {item["type"]: item["content"] for item in reply["output"]}
    return parts.get("reasoning", ""), parts["message"], reply["stats"]["reasoning_output_tokens"]


def of_ollama(reply: Any) -> Said:
    return reply["message"].get("thinking", ""), reply["message"]["content"], None


def of_generation(reply: Any) -> Said:
    return reply.get("thinking", ""), reply["response"], None


NAMES: list[tuple[str, dict[str, Any], Callable[[Any], Said]]] = [
    (CHATS, {**CHAT, "reasoning_budget": 2}, of_chat),
    (CHATS, {**CHAT, "thinking_budget": 2}, of_chat),
    (CHATS, {**CHAT, "thinking_token_budget": 2}, of_chat),
    (CHATS, {**CHAT, "thinking_budget_tokens": 2}, of_chat),
    (CHATS, {**CHAT, "reasoning_budget_tokens": 2}, of_chat),
    (CHATS, {**CHAT, "chat_template_kwargs": {"thinking_budget": 2}}, of_chat),
    (CHATS, {**CHAT, "reasoning": {"max_tokens": 2}}, of_chat),
    (CHATS, {**CHAT, "reasoning_effort": "high", "reasoning_budget": 2, "thinking_budget": 3}, of_chat),
    (V0, {**CHAT, "reasoning_budget": 2}, of_chat),
    ("/v1/messages", {**MESSAGES, "thinking": {"type": "enabled", "budget_tokens": 2}}, of_message),
    ("/v1/messages", {**MESSAGES, "reasoning_budget": 2}, of_message),
    ("/v1/responses", {**RESPONSE, "reasoning": {"max_tokens": 2}}, of_response),
    ("/v1/responses", {**RESPONSE, "reasoning_budget": 2}, of_response),
    ("/api/v1/chat", {**RESPONSE, "reasoning_budget": 2}, of_v1),
    ("/api/chat", {**OLLAMA, "think": 2}, of_ollama),
    ("/api/chat", {**OLLAMA, "think": True, "options": {"reasoning_budget": 2}}, of_ollama),
    ("/api/generate", {"model": KEY, "prompt": "Hello", "stream": False, "think": 2}, of_generation),
]
OFF: list[tuple[str, dict[str, Any], Callable[[Any], Said]]] = [
    (CHATS, {**CHAT, "reasoning_budget": 0}, of_chat),
    (CHATS, {**CHAT, "reasoning": {"enabled": False}}, of_chat),
    ("/v1/messages", {**MESSAGES, "thinking": {"type": "disabled"}}, of_message),
    ("/v1/responses", {**RESPONSE, "reasoning": {"enabled": False}}, of_response),
    ("/api/v1/chat", {**RESPONSE, "reasoning": "off"}, of_v1),
    ("/api/chat", {**OLLAMA, "think": False}, of_ollama),
    ("/api/generate", {"model": KEY, "prompt": "Hello", "stream": False, "think": False}, of_generation),
]


@pytest.fixture
async def asked(registry: FakeRegistry) -> list[Request]:
    """Every request that reaches the worker."""
    return await follow(registry, SCRIPT)


def template_arguments(request: Request) -> Any:
    assert isinstance(request.prompt, ChatPrompt)
    return request.prompt.arguments


async def post(gateway: RunningGateway, path: str, body: dict[str, Any]) -> Any:
    async with gateway.client() as http:
        reply = await http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply


@pytest.mark.parametrize(("path", "body", "read"), NAMES)
async def test_a_budget_holds_under_each_of_its_names(
    gateway: RunningGateway, asked: list[Request], path: str, body: dict[str, Any], read: Callable[[Any], Said]
) -> None:
    reasoning, text, count = read((await post(gateway, path, body)).json())
    assert (reasoning, text) == ("one two", "done")
    assert count in (2, None)
    assert asked[0].sampling.reasoning_budget == 2
    assert template_arguments(asked[0])["thinking_budget"] == 2, "for templates that know it"


@pytest.mark.parametrize(("path", "body", "read"), OFF)
async def test_without_reasoning_the_budget_is_nothing(
    gateway: RunningGateway, asked: list[Request], path: str, body: dict[str, Any], read: Callable[[Any], Said]
) -> None:
    reasoning, text, count = read((await post(gateway, path, body)).json())
    assert (reasoning, text) == ("", "done")
    assert count in (0, None)
    assert asked[0].sampling.reasoning_budget == 0
    assert template_arguments(asked[0])["enable_thinking"] is False, "for templates that have the switch"


async def test_streams_keep_to_the_budget(gateway: RunningGateway, asked: list[Request]) -> None:
    stream = {"stream": True}
    chunks = events_of((await post(gateway, CHATS, {**CHAT, **stream, "reasoning_budget": 2})).text)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk != "[DONE]" and chunk["choices"]]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "one two"
    assert "".join(delta.get("content") or "" for delta in deltas) == "done"

    thinking = {"type": "enabled", "budget_tokens": 2}
    events = events_of((await post(gateway, "/v1/messages", {**MESSAGES, **stream, "thinking": thinking})).text)
    parts = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(part.get("thinking", "") for part in parts) == "one two"
    assert "".join(part.get("text", "") for part in parts) == "done"

    events = events_of((await post(gateway, "/api/v1/chat", {**RESPONSE, **stream, "reasoning_budget": 2})).text)
    assert "".join(event["content"] for event in events if event["type"] == "reasoning.delta") == "one two"


async def test_tools_of_the_mcp_server_have_the_setting(gateway: RunningGateway, asked: list[Request]) -> None:
    async with held_mcp_client(gateway.url) as mcp:
        arguments = {"model": KEY, "prompt": "Hello", "settings": {"reasoning_budget": 2}}
        result = await mcp.call_tool("chat", arguments)
    assert result.structured_content is not None
    assert (result.structured_content["reasoning"], result.structured_content["text"]) == ("one two", "done")


async def test_a_preset_sets_a_budget_that_a_request_may_lift(gateway: RunningGateway, asked: list[Request]) -> None:
    settings = {"inference": {"reasoning_budget": 1}, "prompt": {"reasoning_budget_message": "Enough."}}
    async with gateway.client() as http:
        made = await http.put("/api/v1/presets/brief", json=settings)
        assert made.status_code in (200, 201), made.text
    reply = await post(gateway, CHATS, {**CHAT, "preset": "brief"})
    assert of_chat(reply.json())[0] == "one"
    assert isinstance(asked[0].prompt, ChatPrompt)
    assert asked[0].prompt.output.budget_message == "Enough."
    lifted = await post(gateway, CHATS, {**CHAT, "preset": "brief", "reasoning_budget": -1})
    assert of_chat(lifted.json())[0] == SCRIPT["reasoning"]
    assert template_arguments(asked[1]) == {}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHATS, {**CHAT, "reasoning_budget": -2}, "reasoning_budget"),
        (CHATS, {**CHAT, "thinking_budget": "many"}, "thinking_budget"),
        (CHATS, {**CHAT, "reasoning": {"max_tokens": 1.5}}, "reasoning.max_tokens"),
        (CHATS, {**CHAT, "chat_template_kwargs": {"thinking_budget": -5}}, "chat_template_kwargs.thinking_budget"),
        ("/v1/responses", {**RESPONSE, "reasoning": {"max_tokens": -2}}, "reasoning.max_tokens"),
        ("/api/v1/chat", {**RESPONSE, "reasoning_budget": -2}, "reasoning_budget"),
    ],
)
async def test_a_budget_out_of_bounds_is_rejected_by_name(
    gateway: RunningGateway, asked: list[Request], path: str, body: dict[str, Any], param: str
) -> None:
    async with gateway.client() as http:
        reply = await http.post(path, json=body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param
    assert not asked
