"""MCP with the real model, driven by the official client, over HTTP and through `atelier mcp`."""

import os
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from tests.support.command.server_process import ATELIER, KEY, MODEL, Server

pytestmark = pytest.mark.system

SECONDS = 120.0
CAPITAL: Any = {
    "model": MODEL,
    "prompt": "What is the capital of France?",
    "settings": {"temperature": 0.0, "max_tokens": 24},
}


async def answer(server: Any, mode: str) -> Any:
    """The chat's structured result, which equals its streamed progress."""
    received: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        received.append(message or "")

    async with Client(server, mode=mode, read_timeout_seconds=SECONDS) as client:
        result = await client.call_tool("chat", CAPITAL, progress_callback=on_progress)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    assert "".join(received) == result.structured_content["text"]
    return result.structured_content


async def test_every_transport_gives_the_same_answer(server: Server) -> None:
    url = f"{server.url}/mcp"
    command = StdioServerParameters(
        command=str(ATELIER), args=["mcp"], env={**os.environ, "ATELIER_URL": server.url, "ATELIER_API_KEY": ""}
    )
    answers = [await answer(url, "auto"), await answer(url, "legacy"), await answer(command, "auto")]
    assert {each["text"] for each in answers} == {answers[0]["text"]}
    assert "Paris" in answers[0]["text"]
    assert (answers[0]["model"], answers[0]["usage"]["completion_tokens"] > 0) == (KEY, True)


async def test_a_schema_is_followed_and_tokens_are_counted(server: Server) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]}
    async with Client(f"{server.url}/mcp", read_timeout_seconds=SECONDS) as client:
        made = await client.call_tool("chat", {**CAPITAL, "json_schema": schema, "settings": {"max_tokens": 64}})
        result = await client.call_tool("tokenize", {"model": MODEL, "text": "Hello, world"})
        lines = await client.read_resource("atelier://logs/gateway")
    assert made.structured_content is not None
    assert made.structured_content["text"].startswith("{")
    assert result.structured_content is not None
    assert result.structured_content["count"] == len(result.structured_content["tokens"]) > 1
    assert lines.contents
