"""Anthropic's dialect with the real model, driven by the official client."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.support.command.server_process import KEY, MODEL, Server

pytestmark = pytest.mark.system

CAPITAL: Any = [{"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", timeout=120, max_retries=0) as opened:
        yield opened


def test_counted_tokens_are_those_that_a_message_uses(client: anthropic.Anthropic) -> None:
    prompt: Any = {"model": MODEL, "messages": CAPITAL, "system": "You answer in one word."}
    counted = client.messages.count_tokens(**prompt).input_tokens
    for _ in range(2):  # the second time mostly from the cache
        usage = client.messages.create(**prompt, max_tokens=4).usage
        assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted
    assert usage.cache_read_input_tokens
    assert counted > client.messages.count_tokens(model=MODEL, messages=CAPITAL, system="Be kind.").input_tokens


def test_a_stream_equals_a_message_that_is_not_streamed(client: anthropic.Anthropic) -> None:
    wanted: Any = {"model": KEY, "messages": CAPITAL, "max_tokens": 24, "extra_body": {"temperature": 0}}
    whole = client.messages.create(**wanted)
    with client.messages.stream(**wanted) as stream:
        streamed = stream.get_final_message()
    assert [block.to_dict()["text"] for block in streamed.content] == [
        block.to_dict()["text"] for block in whole.content
    ]
    assert (streamed.stop_reason, streamed.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert "Paris" in str(whole.content)


def test_a_stop_sequence_ends_a_message_and_is_named(client: anthropic.Anthropic) -> None:
    message = client.messages.create(
        model=MODEL, messages=CAPITAL, max_tokens=24, stop_sequences=["Paris"], extra_body={"temperature": 0}
    )
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "Paris")
    assert "Paris" not in str(message.content)


def test_max_tokens_may_exceed_the_context(client: anthropic.Anthropic) -> None:
    extra = {"temperature": 0}
    message = client.messages.create(
        model=MODEL, messages=CAPITAL, max_tokens=100_000, stop_sequences=["Paris"], extra_body=extra, timeout=60
    )
    assert message.stop_reason == "stop_sequence"
