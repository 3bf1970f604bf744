"""OpenAI's dialect over the real wire, with the official client."""

import re
from typing import Any

import openai
import pytest

from protos import registry_pb2 as pb
from protos.settings_pb2 import SamplingSettings
from tests.support.gateway.gateway_registry import KEY, FakeRegistry, model_message
from tests.support.gateway.gateway_server import RunningGateway, events_of, until

HELLO = [{"role": "user", "content": "one two three"}]


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


async def test_several_choices_are_returned_in_one_reply_and_one_stream(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model=KEY, messages=HELLO, n=3)
    assert [(choice.index, choice.message.content) for choice in reply.choices] == [
        (number, "one two three") for number in range(3)
    ]
    assert reply.usage
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 9)
    texts = ["", "", ""]
    async for chunk in await client.chat.completions.create(model=KEY, messages=HELLO, n=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["one two three"] * 3


async def test_max_tokens_and_stop_strings_end_a_completion(client: openai.AsyncOpenAI) -> None:
    cut = await client.chat.completions.create(model=KEY, messages=HELLO, max_tokens=2)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("one two", "length")
    stopped = await client.chat.completions.create(model=KEY, messages=HELLO, stop=["three"])
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("one two ", "stop")


async def test_text_completions_accept_one_prompt_or_many(client: openai.AsyncOpenAI) -> None:
    one = await client.completions.create(model=KEY, prompt="a b")
    assert (one.object, one.choices[0].text, one.choices[0].finish_reason) == ("text_completion", "a b", "stop")
    many = await client.completions.create(model=KEY, prompt=["a", "b c"], n=2)
    assert [(choice.index, choice.text) for choice in many.choices] == [(0, "a"), (1, "a"), (2, "b c"), (3, "b c")]
    assert many.usage
    assert (many.usage.prompt_tokens, many.usage.completion_tokens) == (3, 6)
    tokens = await client.completions.create(model=KEY, prompt=[[5, 6], [7]])
    assert [choice.text for choice in tokens.choices] == ["5 6", "7"]


async def test_text_completions_stream_every_prompt(client: openai.AsyncOpenAI) -> None:
    texts = ["", ""]
    stream = await client.completions.create(
        model=KEY, prompt=["a b", "c"], stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
        usage = chunk.usage
    assert texts == ["a b", "c"]
    assert usage
    assert usage.total_tokens == 6


async def test_models_are_listed_and_found_by_short_names(client: openai.AsyncOpenAI) -> None:
    listed = await client.models.list()
    assert [(model.id, model.object, model.owned_by) for model in listed.data] == [(KEY, "model", "acme")]
    assert (await client.models.retrieve("TINY")).id == KEY
    with pytest.raises(openai.NotFoundError, match="Near names: acme/tiny"):
        await client.models.retrieve("acme/tinny")


async def test_models_are_listed_with_capabilities_and_context_length(
    client: openai.AsyncOpenAI, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    def facts(model: Any) -> tuple[Any, ...]:
        names = ("type", "state", "max_context_length", "loaded_context_length", "capabilities")
        return tuple(model.model_dump().get(name) for name in names)

    assert facts(await client.models.retrieve(KEY)) == ("llm", "not-loaded", 8192, None, [])
    registry.tell(pb.Change(model=model_message(made_for_tools=True, made_for_reasoning=True)))
    registry.tell(pb.Change(model=model_message("acme/embed", embedding=True)))
    await registry.start_instance(context_length=1024)
    await registry.start_instance(id="long", context_length=2048)
    await until(lambda: len(gateway.gateway.watcher.snapshot.instances) == 2)
    abilities = ["tool_use", "reasoning"]
    assert {model.id: facts(model) for model in (await client.models.list()).data} == {
        KEY: ("llm", "loaded", 8192, 1024, abilities),
        "acme/embed": ("embeddings", "not-loaded", 8192, None, []),
        "long": ("llm", "loaded", 8192, 2048, abilities),
    }
    async with gateway.client() as http:
        _, embed, tiny = ["", *(await http.get("/api/v1/models")).json()["models"]]
        assert [each["capabilities"]["trained_for_tool_use"] for each in (embed, tiny)] == [False, True]
        assert [each["capabilities"] for each in (await http.get("/api/v0/models")).json()["data"]] == [[], abilities]


async def test_an_unknown_model_is_a_404_with_suggestions_before_any_load(
    client: openai.AsyncOpenAI, registry: FakeRegistry
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="acme/tinny", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "acme/tiny" in caught.value.message
    assert registry.ensured == []


async def test_a_prompt_that_is_too_long_is_a_400_for_streams_too(
    client: openai.AsyncOpenAI, registry: FakeRegistry
) -> None:
    await registry.start_instance(context_length=128)
    long = [{"role": "user", "content": "word " * 200}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model=KEY, messages=long, stream=stream)
        assert caught.value.code == "context_length_exceeded"


async def test_errors_have_openais_envelope(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        replies = [
            await http.get("/v2/nothing"),
            await http.get("/v1/chat/completions"),
            await http.post("/v1/chat/completions", json={"model": KEY, "messages": HELLO, "temperature": "hot"}),
            await http.post("/v1/chat/completions", content=b"{"),
        ]
    assert [reply.status_code for reply in replies] == [404, 405, 400, 400]
    assert all(set(reply.json()["error"]) == {"message", "type", "param", "code"} for reply in replies)
    assert replies[1].headers["allow"] == "POST"
    assert replies[2].json()["error"]["param"] == "temperature"


async def test_defaults_of_the_model_file_apply_where_the_request_sets_nothing(
    client: openai.AsyncOpenAI, registry: FakeRegistry, gateway: RunningGateway
) -> None:
    defaults = SamplingSettings(stop=["two"], max_tokens=1)
    registry.tell(pb.Change(model=model_message(sampling_defaults=defaults)))
    await until(lambda: gateway.gateway.watcher.snapshot.models[KEY].sampling_defaults)
    silent = await client.chat.completions.create(model=KEY, messages=HELLO)
    assert silent.choices[0].message.content == "one"
    outspoken = await client.chat.completions.create(model=KEY, messages=HELLO, max_tokens=50, stop=["three"])
    assert outspoken.choices[0].message.content == "one two "


async def test_an_embedding_model_does_not_chat(
    client: openai.AsyncOpenAI, registry: FakeRegistry, gateway: RunningGateway
) -> None:
    registry.tell(pb.Change(model=model_message("acme/embed", embedding=True)))
    await until(lambda: "acme/embed" in gateway.gateway.watcher.snapshot.models)
    with pytest.raises(openai.BadRequestError, match="makes embeddings"):
        await client.chat.completions.create(model="embed", messages=HELLO)


async def test_numbers_beyond_64_bits_break_nothing(gateway: RunningGateway) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}", "big": 2**70}}
    history = [{"role": "assistant", "content": None, "tool_calls": [call]}, *HELLO]
    bounds = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 2**70}}}
    schema = {"type": "json_schema", "json_schema": {"schema": bounds}}
    tool = {"type": "function", "function": {"name": "f", "parameters": bounds}}
    async with gateway.client() as http:

        async def param(**fields: Any) -> tuple[int, str | None]:
            reply = await http.post("/v1/chat/completions", json={"model": KEY, "messages": HELLO, **fields})
            return reply.status_code, reply.json().get("error", {}).get("param")

        assert await param(messages=history) == (200, None)  # fields without effect are not validated
        assert await param(response_format=schema) == (200, None)
        assert await param(tools=[tool]) == (400, "tools")
        assert await param(chat_template_kwargs={"a": 2**70}) == (400, "chat_template_kwargs.a")


@pytest.mark.parametrize("stream", [False, True])
async def test_unenforced_schema_keywords_are_listed_in_a_header(
    registry: FakeRegistry, gateway: RunningGateway, stream: bool
) -> None:
    registry.script = {"unenforced": ["not", "uniqueItems", "evil\r\nheader: 1"]}
    async with gateway.client() as http:
        for route, prompt in (("chat/completions", {"messages": HELLO}), ("completions", {"prompt": ["a", "b"]})):
            reply = await http.post(f"/v1/{route}", json={"model": KEY, "stream": stream, **prompt})
            assert (reply.status_code, reply.headers["x-atelier-unenforced"]) == (200, "not, uniqueItems")


async def test_a_fully_enforced_schema_has_no_such_header(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        reply = await http.post("/v1/chat/completions", json={"model": KEY, "messages": HELLO, "regex": "a"})
    assert reply.status_code == 200
    assert "x-atelier-unenforced" not in reply.headers


async def test_a_reply_has_the_durations_of_its_parts(gateway: RunningGateway) -> None:
    parts = {}
    async with gateway.client() as http:
        for stream in (False, True):
            reply = await http.post("/v1/chat/completions", json={"model": KEY, "messages": HELLO, "stream": stream})
            found = [re.fullmatch(r"(\w+);dur=\d+\.\d", part) for part in reply.headers["server-timing"].split(", ")]
            parts[stream] = [part.group(1) for part in found if part]
            assert None not in found
    assert parts == {False: ["accept", "queue", "prefill", "decode"], True: ["accept"]}


async def test_two_constraints_are_rejected(gateway: RunningGateway) -> None:
    body = {"model": KEY, "messages": HELLO, "regex": "a", "grammar": 'root ::= "a"'}
    async with gateway.client() as http:
        reply = await http.post("/v1/chat/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "regex")


async def test_a_reply_says_what_was_omitted_from_its_prompts(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"dropped": [4, 812]}
    await registry.start_instance()
    chat = {"model": KEY, "messages": HELLO, "context_overflow": "truncateMiddle"}
    async with gateway.client() as http:
        for body in (chat, {**chat, "stream": True}):
            reply = await http.post("/v1/chat/completions", json=body)
            assert (reply.status_code, reply.headers["x-atelier-truncated"]) == (200, "messages=4, tokens=812")
        both = await http.post("/v1/completions", json={"model": KEY, "prompt": ["a", "b"]})
        assert both.headers["x-atelier-truncated"] == "messages=8, tokens=1624"
        refused = await http.post("/v1/chat/completions", json={**chat, "context_overflow": "forget"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "context_overflow")


async def test_a_reply_to_an_unshortened_prompt_has_no_such_header(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        reply = await http.post("/v1/chat/completions", json={"model": KEY, "messages": HELLO})
    assert "x-atelier-truncated" not in reply.headers
