"""OpenAI's dialect over the real wire, with the official client."""

from collections.abc import AsyncIterator

import openai
import pytest

from tests.support.gateway_registry import KEY, FakeRegistry
from tests.support.gateway_server import PATIENCE, RunningGateway, events_of

HELLO = [{"role": "user", "content": "one two three"}]


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{gateway.url}/v1", api_key="none", timeout=PATIENCE, max_retries=0, http_client=gateway.client()
    ) as opened:
        yield opened


async def test_chat_completion_has_the_reply_and_its_usage(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model=KEY, messages=HELLO)
    assert reply.object == "chat.completion"
    assert reply.model == KEY
    assert reply.choices[0].message.content == "one two three"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (3, 3, 6)
    assert reply.usage.prompt_tokens_details
    assert reply.usage.prompt_tokens_details.cached_tokens == 0


async def test_stream_begins_with_the_role_and_ends_with_finish_usage_and_done(
    gateway: RunningGateway,
) -> None:
    body = {"model": KEY, "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    async with gateway.client() as http:
        reply = await http.post("/v1/chat/completions", json=body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    first, *middle, last, usage, done = events_of(reply.text)
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in middle) == "one two three"
    assert all(chunk["usage"] is None and chunk["id"] == first["id"] for chunk in middle)
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 6)
    assert done == "[DONE]"


async def test_the_official_client_reads_a_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=KEY, messages=HELLO, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "one two three"
