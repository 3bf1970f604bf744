"""Anthropic's dialect over the real wire, with the official client."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from pydantic import TypeAdapter

from protos import registry_pb2 as pb
from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, post_bytes, running_gateway, until

HELLO: Any = [{"role": "user", "content": "one two three"}]
BODY = {"model": KEY, "max_tokens": 100, "messages": HELLO}
WEATHER: Any = {
    "name": "weather",
    "description": "Of a place",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}
CALLS = [{"name": "weather", "arguments": '{"place": "Kiel"}'}, {"name": "weather", "arguments": '{"place": "Bonn"}'}]
EVENT: TypeAdapter[Any] = TypeAdapter(anthropic.types.RawMessageStreamEvent)


def client_of(gateway: RunningGateway, **options: Any) -> anthropic.AsyncAnthropic:
    given = {"api_key": "none", **options}
    http = anthropic.DefaultAsyncHttpxClient(trust_env=False, verify=False)
    return anthropic.AsyncAnthropic(base_url=gateway.url, timeout=PATIENCE, max_retries=0, http_client=http, **given)


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with client_of(gateway) as opened:
        yield opened


async def stream_text(gateway: RunningGateway, **fields: Any) -> str:
    async with gateway.client() as http:
        reply = await http.post("/v1/messages", json={**BODY, "stream": True, **fields})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    return reply.text


def events_of(text: str) -> list[dict[str, Any]]:
    """Each event's data; its name is the data's type."""
    events = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def shape(event: dict[str, Any]) -> str:
    """`content_block_delta 0 text_delta`: the part of an event that is the same for every text."""
    inner = event.get("content_block") or event.get("delta") or {}
    return " ".join(str(part) for part in (event["type"], event.get("index"), inner.get("type")) if part is not None)


def without_repeats(shapes: list[str]) -> list[str]:
    return [each for number, each in enumerate(shapes) if number == 0 or each != shapes[number - 1]]


async def test_a_message_has_its_text_its_end_and_its_usage(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(
        **BODY, system="Be brief.", metadata={"user_id": "u"}, extra_body={"temperature": 0.5, "top_k": 3, "top_p": 0.9}
    )
    assert (message.type, message.role, message.model) == ("message", "assistant", KEY)
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "one two three"}]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.to_dict() == {
        "input_tokens": 3,
        "output_tokens": 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }
    assert message.id.startswith("msg_")
    assert message._request_id  # as the client reads it from the headers


async def test_max_tokens_and_stop_sequences_end_a_message(client: anthropic.AsyncAnthropic) -> None:
    cut = await client.messages.create(**{**BODY, "max_tokens": 2})
    assert (cut.content[0].text, cut.stop_reason) == ("one two", "max_tokens")  # type: ignore[union-attr]
    stopped = await client.messages.create(**BODY, stop_sequences=["four", "three"])
    assert (stopped.content[0].text, stopped.stop_reason) == ("one two ", "stop_sequence")  # type: ignore[union-attr]
    assert stopped.stop_sequence == "three"


async def test_a_streams_events_come_in_anthropics_order(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"reasoning": "let me see", "tool_calls": CALLS}
    events = events_of(await stream_text(gateway, tools=[WEATHER]))
    assert without_repeats([shape(event) for event in events]) == [
        "message_start",
        "content_block_start 0 thinking",
        "ping",
        "content_block_delta 0 thinking_delta",
        "content_block_delta 0 signature_delta",
        "content_block_stop 0",
        "content_block_start 1 text",
        "content_block_delta 1 text_delta",
        "content_block_stop 1",
        "content_block_start 2 tool_use",
        "content_block_delta 2 input_json_delta",
        "content_block_stop 2",
        "content_block_start 3 tool_use",
        "content_block_delta 3 input_json_delta",
        "content_block_stop 3",
        "message_delta",
        "message_stop",
    ]
    for event in events:
        if event["type"] != "ping":  # the client drops it before it reads it
            EVENT.validate_python(event)
    start, end = events[0]["message"], events[-2]
    assert (start["content"], start["stop_reason"], start["usage"]["input_tokens"]) == ([], None, 3)
    assert end["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert end["usage"]["output_tokens_details"] == {"thinking_tokens": 3}


async def test_a_message_without_text_has_no_block(
    client: anthropic.AsyncAnthropic, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    registry.script = {"text": ""}
    events = events_of(await stream_text(gateway))
    assert [event["type"] for event in events] == ["message_start", "message_delta", "message_stop"]
    assert (await client.messages.create(**BODY)).content == []


@pytest.mark.parametrize(
    ("script", "fields"),
    [
        ({}, {}),
        ({}, {"max_tokens": 2}),
        ({}, {"stop_sequences": ["three"]}),
        ({"reasoning": "let me see"}, {}),
        ({"reasoning": "let me see"}, {"max_tokens": 2}),
        ({"reasoning": "let me see"}, {"thinking": {"type": "adaptive", "display": "omitted"}}),
        ({"tool_calls": CALLS}, {"tools": [WEATHER]}),
        ({"tool_calls": CALLS, "text": "", "reasoning": "call"}, {"tools": [WEATHER]}),
        ({"tool_calls": CALLS}, {"tools": [WEATHER], "max_tokens": 5}),  # within the arguments
        ({"tool_calls": [{"name": "weather", "arguments": ""}]}, {"tools": [WEATHER]}),
        ({"text": 'a "quoted" \\ 漢字 \N{GRINNING FACE}'}, {}),
    ],
)
async def test_streams_and_whole_messages_agree(
    client: anthropic.AsyncAnthropic, registry: FakeRegistry, script: Any, fields: dict[str, Any]
) -> None:
    registry.script = script
    whole = await client.messages.create(**{**BODY, **fields})
    async with client.messages.stream(**{**BODY, **fields}) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        streamed = await stream.get_final_message()
        assert stream.request_id
    assert text == "".join(block.text for block in whole.content if block.type == "text")
    assert _facts(streamed) == _facts(whole)
    if "omitted" in str(fields):
        assert (whole.content[0].type, whole.content[0].to_dict()["thinking"]) == ("thinking", "")


def _facts(message: Any) -> Any:
    facts = json.loads(message.to_json())
    blocks = [{name: value for name, value in block.items() if value is not None} for block in facts["content"]]
    return blocks, facts["stop_reason"], facts.get("stop_sequence"), facts["usage"]


async def test_tool_calls_make_a_round_trip(
    client: anthropic.AsyncAnthropic, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    registry.script = {"reasoning": "let me see", "tool_calls": CALLS}
    asked = await client.messages.create(
        **{**BODY, "max_tokens": 4096}, tools=[WEATHER], thinking={"type": "enabled", "budget_tokens": 1024}
    )
    assert asked.stop_reason == "tool_use"
    calls = [block for block in asked.content if block.type == "tool_use"]
    assert [(each.name, each.input) for each in calls] == [("weather", {"place": p}) for p in ("Kiel", "Bonn")]
    assert len({each.id for each in calls}) == 2
    results: Any = [{"type": "tool_result", "tool_use_id": each.id, "content": "12 °C"} for each in calls]
    history: Any = [
        *HELLO,
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": [*results, {"type": "text", "text": "so what"}]},
    ]
    answered = await client.messages.create(model=KEY, max_tokens=100, messages=history)
    assert [block.to_dict()["type"] for block in answered.content] == ["thinking", "text"]
    assert (answered.content[1].text, answered.stop_reason) == ("so what", "end_turn")  # type: ignore[union-attr]
    counted = await client.messages.count_tokens(model=KEY, messages=history, tools=[WEATHER])
    assert counted.input_tokens == 2  # the scripted engine's prompt is the last user message


async def test_counted_tokens_are_those_of_the_prompt_and_nothing_is_computed(
    client: anthropic.AsyncAnthropic, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    def computed() -> float | None:
        return gateway.gateway.metrics.registry.get_sample_value("atelier_prompt_tokens_total", {"model": KEY})

    counted = await client.messages.count_tokens(model="tiny", messages=HELLO, system="x", tools=[WEATHER])
    assert registry.ensured == [KEY]  # the model was loaded for it
    assert computed() == 0
    assert counted.input_tokens == (await client.messages.create(**BODY)).usage.input_tokens == 3
    assert computed() == 3


async def test_the_blocking_client_reads_messages_and_streams(gateway: RunningGateway) -> None:
    def ask() -> tuple[str, str]:
        http = anthropic.DefaultHttpxClient(trust_env=False, verify=False)
        with anthropic.Anthropic(
            base_url=gateway.url, api_key="none", timeout=PATIENCE, max_retries=0, http_client=http
        ) as client:
            whole = client.messages.create(**BODY).content[0]
            with client.messages.stream(**BODY) as stream:
                return whole.text, "".join(stream.text_stream)  # type: ignore[union-attr]

    assert await asyncio.wait_for(asyncio.to_thread(ask), PATIENCE) == ("one two three", "one two three")


async def test_models_are_in_anthropics_form_for_its_clients_only(
    client: anthropic.AsyncAnthropic, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    listed = await client.models.list()
    assert [(model.id, model.type, model.display_name) for model in listed.data] == [(KEY, "model", KEY)]
    assert (listed.has_more, listed.first_id, listed.last_id) == (False, KEY, KEY)
    assert (await client.models.retrieve("tiny")).id == KEY
    with pytest.raises(anthropic.NotFoundError) as caught:
        await client.models.retrieve("acme/tinny")
    assert _error_of(caught.value)["type"] == "not_found_error"
    async with gateway.client() as http:
        assert (await http.get("/v1/models")).json()["object"] == "list"
        assert "code" in (await http.get("/v1/models/acme/tinny")).json()["error"]


async def test_pages_of_models_are_followed(
    client: anthropic.AsyncAnthropic, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    for name in "abc":
        registry.tell(pb.Change(model=pb.Model(key=f"acme/{name}", name=name)))
    await until(lambda: len(gateway.gateway.watcher.snapshot.models) == 4)
    found = [model.id async for model in client.models.list(limit=2)]
    assert found == ["acme/a", "acme/b", "acme/c", KEY]


def _error_of(error: anthropic.APIStatusError) -> dict[str, Any]:
    body: Any = error.body
    assert (set(body), body["type"]) == ({"type", "error", "request_id"}, "error")
    assert set(body["error"]) == {"type", "message"}
    assert body["request_id"] == error.response.headers["request-id"] == error.response.headers["x-request-id"]
    error_fields: dict[str, Any] = body["error"]
    return error_fields


@pytest.mark.parametrize("stream", [False, True])
async def test_errors_are_of_the_clients_classes(
    client: anthropic.AsyncAnthropic, registry: FakeRegistry, stream: bool
) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        await client.messages.create(**{**BODY, "model": "acme/tinny"}, stream=stream)
    assert _error_of(missing.value)["type"] == "not_found_error"
    assert "acme/tiny" in missing.value.message
    assert registry.ensured == []
    with pytest.raises(anthropic.BadRequestError, match="max_tokens: must be greater") as bad:
        await client.messages.create(**{**BODY, "max_tokens": 0}, stream=stream)
    assert _error_of(bad.value)["type"] == "invalid_request_error"
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    with pytest.raises(anthropic.BadRequestError, match="does not accept images"):
        await client.messages.create(**{**BODY, "messages": [{"role": "user", "content": [image]}]}, stream=stream)
    long: Any = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(anthropic.BadRequestError, match="5001 tokens and the context 4096"):
        await client.messages.create(**{**BODY, "messages": long}, stream=stream)


async def test_invalid_bodies_are_rejected_in_anthropics_form(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        replies = [
            await http.post("/v1/messages", content=b"{"),
            await http.post("/v1/messages", content=b""),
            await http.post("/v1/messages", content=b'{"model": "\xff"}'),
            await http.post("/v1/messages", json=[]),
            await http.post("/v1/messages", json={"messages": HELLO, "max_tokens": 5}),
            await http.post("/v1/messages/count_tokens", json={"model": KEY}),
            await http.get("/v1/messages"),
            await http.post("/v1/messages/batches", json={}),
            await http.get("/nothing", headers={"anthropic-version": "2023-06-01"}),
        ]
    assert [reply.status_code for reply in replies] == [400, 400, 400, 400, 400, 400, 405, 404, 404]
    assert all(set(reply.json()) == {"type", "error", "request_id"} for reply in replies)
    assert replies[4].json()["error"]["message"] == "model: is required"


async def test_a_key_may_come_in_either_header(registry: FakeRegistry) -> None:
    async with running_gateway(registry, api_key="secret-key") as gateway:
        for given in ({"api_key": "secret-key"}, {"api_key": None, "auth_token": "secret-key"}):
            async with client_of(gateway, **given) as client:
                assert (await client.messages.create(**BODY)).content
        async with client_of(gateway, api_key="another") as client:
            for request in (client.messages.create(**BODY), client.models.list()):
                with pytest.raises(anthropic.AuthenticationError) as caught:
                    await request
                assert _error_of(caught.value)["type"] == "authentication_error"


async def test_a_body_beyond_the_limit_is_too_large_in_anthropics_form(registry: FakeRegistry) -> None:
    async with running_gateway(registry, body_limit_mb=0.001) as gateway, client_of(gateway) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(**{**BODY, "system": "x" * 2000})
    assert (caught.value.status_code, _error_of(caught.value)["type"]) == (413, "request_too_large")


async def test_too_many_requests_are_overloaded_with_retry_after(registry: FakeRegistry) -> None:
    registry.script = {"hold": True}
    await registry.start_instance()
    async with running_gateway(registry, max_queued=1) as gateway, client_of(gateway) as client:
        first = asyncio.create_task(client.messages.create(**BODY))
        second = asyncio.create_task(client.messages.create(**BODY))
        done, (waiting,) = await asyncio.wait([first, second], timeout=PATIENCE, return_when="FIRST_COMPLETED")
        registry.workers[KEY].engine.release()  # type: ignore[attr-defined]
        assert (await waiting).content
        error = done.pop().exception()
    assert isinstance(error, anthropic.InternalServerError)
    assert (error.status_code, error.response.headers["retry-after"]) == (503, "5")
    assert _error_of(error)["type"] == "overloaded_error"


async def test_an_unexpected_error_is_an_api_error(
    gateway: RunningGateway, client: anthropic.AsyncAnthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*arguments: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(gateway.gateway.inference, "start", broken)
    with pytest.raises(anthropic.InternalServerError) as caught:
        await client.messages.create(**BODY)
    assert _error_of(caught.value)["type"] == "api_error"
    assert "secret" not in caught.value.message


async def test_a_worker_lost_in_mid_stream_is_an_error_event_without_message_stop(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    registry.script = {"hang_after_tokens": 1}
    await registry.start_instance()
    await until(lambda: gateway.gateway.watcher.snapshot.instances)
    async with gateway.client() as http, http.stream("POST", "/v1/messages", json={**BODY, "stream": True}) as reply:
        text = ""
        async for piece in reply.aiter_text():
            text += piece
            if '"text":"one' in text and KEY in registry.workers:
                await registry.kill_worker(KEY)
    *_, last = events_of(text)
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")
    assert last["request_id"] == reply.headers["request-id"]
    assert "message_stop" not in text
    assert "message_delta" not in text


async def test_the_official_client_raises_what_ends_a_stream(
    gateway: RunningGateway, client: anthropic.AsyncAnthropic, registry: FakeRegistry
) -> None:
    registry.script = {"hang_after_tokens": 1}
    await registry.start_instance()
    await until(lambda: gateway.gateway.watcher.snapshot.instances)
    async with client.messages.stream(**BODY) as stream:
        assert (await anext(stream.text_stream)).startswith("one")
        await registry.kill_worker(KEY)
        with pytest.raises(anthropic.APIStatusError, match="api_error"):
            await stream.get_final_message()


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages?beta=true"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_disconnect_frees_the_sequence(
    gateway: RunningGateway, registry: FakeRegistry, path: str, stream: bool
) -> None:
    registry.script = {"text": "word " * 100_000, "step_seconds": 0.001}
    await registry.start_instance()
    await until(lambda: gateway.gateway.watcher.snapshot.instances)
    _, writer = await gateway.raw(post_bytes(path, {**BODY, "max_tokens": 4000, "stream": stream}))
    engine = registry.workers[KEY].engine
    await until(lambda: engine.figures().active == 1)
    writer.close()
    await until(lambda: engine.figures().active == 0 and gateway.gateway.admission.active == 0)
