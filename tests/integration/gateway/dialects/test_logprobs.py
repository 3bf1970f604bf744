"""Further parts of an answer: log-probabilities, the echoed prompt, progress."""

from typing import Any

import openai
import pytest

from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import RunningGateway, events_of

HELLO: Any = [{"role": "user", "content": "one two three"}]
WORDS = ["one", " two", " three"]


async def test_a_chat_returns_the_log_probability_of_every_token(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model=KEY, messages=HELLO, n=2, logprobs=True, top_logprobs=2)
    for choice in reply.choices:
        assert choice.logprobs
        assert choice.logprobs.content
        assert [entry.token for entry in choice.logprobs.content] == WORDS
        assert [bytes(entry.bytes or []).decode() for entry in choice.logprobs.content] == WORDS
        top = choice.logprobs.content[1].top_logprobs
        assert [(each.token, each.logprob) for each in top] == [(" two", -0.5), (" other1", -1.0)]


async def test_a_streamed_chat_returns_the_same_log_probabilities(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=KEY, messages=HELLO, logprobs=True, stream=True)
    choices = [chunk.choices[0] async for chunk in stream]
    reported = [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content or []]
    assert [entry.token for entry in reported] == WORDS
    assert all(entry.top_logprobs == [] for entry in reported)
    assert "".join(choice.delta.content or "" for choice in choices) == "one two three"


async def test_a_text_completion_returns_tokens_with_their_offsets(client: openai.AsyncOpenAI) -> None:
    reply = await client.completions.create(model=KEY, prompt=["one two", "é x"], logprobs=2)
    first, second = (choice.logprobs for choice in reply.choices)
    assert first
    assert (first.tokens, first.token_logprobs, first.text_offset) == (["one", " two"], [-0.5, -0.5], [0, 3])
    assert first.top_logprobs == [{"one": -0.5, " other1": -1.0}, {" two": -0.5, " other1": -1.0}]
    assert second
    assert (second.tokens, second.text_offset) == (["é", " x"], [0, 1])


async def test_a_streamed_text_completion_returns_the_same(client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(model=KEY, prompt="one two three", logprobs=0, stream=True)
    reported = [chunk.choices[0].logprobs async for chunk in stream]
    assert [token for each in reported if each for token in each.tokens or []] == WORDS
    assert [offset for each in reported if each for offset in each.text_offset or []] == [0, 3, 7]


async def test_tokens_whose_text_is_held_back_are_reported(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model=KEY, messages=HELLO, logprobs=True, stop=["two three"])
    (choice,) = reply.choices
    assert choice.message.content == "one "
    assert choice.logprobs
    assert [entry.token for entry in choice.logprobs.content or []] == WORDS


async def test_replies_have_none_unless_they_are_requested(client: openai.AsyncOpenAI) -> None:
    assert (await client.chat.completions.create(model=KEY, messages=HELLO)).choices[0].logprobs is None
    assert (await client.completions.create(model=KEY, prompt="a")).choices[0].logprobs is None


async def test_lm_studios_chat_returns_log_probabilities_too(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        reply = await http.post("/api/v0/chat/completions", json={"model": KEY, "messages": HELLO, "logprobs": True})
    assert [entry["token"] for entry in reply.json()["choices"][0]["logprobs"]["content"]] == WORDS


async def test_an_echo_puts_the_prompt_before_every_choice(client: openai.AsyncOpenAI, registry: FakeRegistry) -> None:
    registry.script = {"text": " c"}
    reply = await client.completions.create(model=KEY, prompt=["a", "b"], n=2, echo=True)
    assert [choice.text for choice in reply.choices] == ["a c", "a c", "b c", "b c"]
    texts = ["", ""]
    async for chunk in await client.completions.create(model=KEY, prompt=["a", "b"], echo=True, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == ["a c", "b c"]


async def test_tokens_of_an_echoed_prompt_have_log_probabilities_too(
    client: openai.AsyncOpenAI, registry: FakeRegistry
) -> None:
    registry.script = {"text": " c"}
    asked: Any = {"model": KEY, "prompt": ["a b", "d"], "echo": True, "logprobs": 1}
    reply = await client.completions.create(**asked)
    assert [choice.text for choice in reply.choices] == ["a b c", "d c"]
    reported = reply.choices[0].logprobs
    assert reported
    assert (reported.tokens, reported.text_offset) == (["a", " b", " c"], [0, 1, 3])
    assert reported.token_logprobs == [None, -0.5, -0.5]
    assert reported.top_logprobs == [None, {" b": -0.5}, {" c": -0.5}]
    streamed: Any = await client.completions.create(**asked, stream=True)
    chunks = [chunk.choices[0] async for chunk in streamed]
    first = [chunk for chunk in chunks if chunk.index == 0]
    assert "".join(chunk.text for chunk in first) == "a b c"
    assert [value for chunk in first if chunk.logprobs for value in chunk.logprobs.token_logprobs] == [None, -0.5, -0.5]


async def test_a_prompt_of_token_ids_can_be_scored_without_generating(client: openai.AsyncOpenAI) -> None:
    reply = await client.completions.create(model=KEY, prompt=[[1, 2], [3]], echo=True, logprobs=1, max_tokens=0)
    (first, second) = reply.choices
    assert (first.text, second.text) == ("1 2", "3")  # the scripted engine writes token ids as numbers
    assert first.logprobs
    assert first.logprobs.token_logprobs == [None, -0.5]
    assert first.finish_reason == "length"
    assert reply.usage
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 0)


async def test_of_more_completions_the_best_are_returned(client: openai.AsyncOpenAI) -> None:
    reply = await client.completions.create(model=KEY, prompt=["a b", "c"], n=2, best_of=3, echo=True)
    assert [(choice.index, choice.text) for choice in reply.choices] == [
        (0, "a ba b"),
        (1, "a ba b"),
        (2, "cc"),
        (3, "cc"),
    ]
    assert all(choice.logprobs is None for choice in reply.choices)
    assert reply.usage
    assert reply.usage.completion_tokens == 9  # the discarded ones were generated too


async def test_a_suffix_reaches_the_worker(client: openai.AsyncOpenAI) -> None:
    reply = await client.completions.create(model=KEY, prompt="a b", suffix="c", echo=True)
    assert reply.choices[0].text == "a ba b"  # the scripted engine repeats the text before the gap


@pytest.mark.parametrize(
    ("route", "prompt"), [("chat/completions", {"messages": HELLO}), ("completions", {"prompt": "one two three"})]
)
async def test_a_stream_reports_the_progress_of_its_prompt(
    gateway: RunningGateway, registry: FakeRegistry, route: str, prompt: dict[str, Any]
) -> None:
    # A step takes a while, so that each is reported before the next.
    registry.script = {"step_seconds": 0.01}
    body = {"model": KEY, "stream": True, "return_progress": True, "n": 2, **prompt}
    async with gateway.client() as http:
        *chunks, done = events_of((await http.post(f"/v1/{route}", json=body)).text)
    assert done == "[DONE]"
    reported = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
    assert [(each["total"], each["cache"], each["processed"]) for each in reported] == [(3, 0, 2), (3, 0, 3)]
    assert all(each["time_ms"] >= 0 for each in reported)
    empty = [chunk["choices"][0] for chunk in chunks if "prompt_progress" in chunk]
    assert all(choice.get("delta") == {} or choice.get("text") == "" for choice in empty)


async def test_streams_have_no_progress_unless_it_is_requested(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        streamed = await http.post("/v1/completions", json={"model": KEY, "prompt": "a b c", "stream": True})
        whole = await http.post("/v1/completions", json={"model": KEY, "prompt": "a b c", "return_progress": True})
    assert "prompt_progress" not in streamed.text
    assert (whole.status_code, "prompt_progress" in whole.json()) == (200, False)


async def test_draft_tokens_are_counted_by_model(
    gateway: RunningGateway, client: openai.AsyncOpenAI, registry: FakeRegistry
) -> None:
    registry.script = {"draft_tokens": [5, 3]}
    await client.chat.completions.create(model=KEY, messages=HELLO, n=2)
    metrics = gateway.gateway.metrics.registry
    assert metrics.get_sample_value("atelier_draft_tokens_total", {"model": KEY}) == 10
    assert metrics.get_sample_value("atelier_accepted_draft_tokens_total", {"model": KEY}) == 6
