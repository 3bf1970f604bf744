"""LM Studio's v1 chat: whole, streamed, from an unloaded model, continued, and its errors."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from atelier.errors import InsufficientMemory
from protos import registry_pb2 as pb
from tests.support.gateway.gateway_registry import KEY, FakeRegistry, model_message
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, post_bytes, running_gateway, until
from worker.engine.interface import ChatPrompt

PATH = "/api/v1/chat"
CHAT = {"model": "tiny", "input": "one two three"}
STREAM = {**CHAT, "stream": True}
COLD = "acme/cold"
FIGURES = {
    *("input_tokens", "total_output_tokens", "reasoning_output_tokens"),
    *("tokens_per_second", "time_to_first_token_seconds"),
}
PROMPT = [
    ("prompt_processing.start", {}),
    ("prompt_processing.progress", {"progress": 1.0}),
    ("prompt_processing.end", {}),
]

NamedEvent = tuple[str, dict[str, Any]]


def events_of(text: str) -> list[NamedEvent]:
    """The events by name, with the rest of their data; the text contains nothing else."""
    *frames, rest = text.split("\n\n")
    assert rest == ""
    events = []
    for frame in frames:
        name, data = frame.split("\n")
        values = json.loads(data.removeprefix("data: "))
        assert values.pop("type") == name.removeprefix("event: ")
        events.append((name.removeprefix("event: "), values))
    return events


def joined(events: list[NamedEvent]) -> list[NamedEvent]:
    """Successive deltas as one, and of progress the last: how many there are depends on the speed."""
    result: list[NamedEvent] = []
    for name, values in events:
        kind = name.rpartition(".")[2]
        if kind in ("delta", "progress") and result and result[-1][0] == name:
            _, before = result.pop()
            values = {"content": before["content"] + values["content"]} if kind == "delta" else values
        result.append((name, values))
    return result


def names(events: list[NamedEvent]) -> list[str]:
    return [name for name, _ in events]


async def ask(gateway: RunningGateway, **more: Any) -> httpx.Response:
    async with gateway.client() as http:
        return await http.post(PATH, json={**CHAT, **more})


async def warm(gateway: RunningGateway, registry: FakeRegistry, **script: Any) -> list[Any]:
    """The prompts that the worker gets; its gateway knows that it is ready."""
    registry.script = script
    await registry.start_instance()
    await until(lambda: gateway.gateway.watcher.snapshot.instances)
    return prompts_of(registry, KEY)


def prompts_of(registry: FakeRegistry, instance: str) -> list[Any]:
    engine, seen = registry.workers[instance].engine, []
    submit = engine.submit

    def noted(source: Any, request: Any) -> None:
        seen.append(request.prompt)
        submit(source, request)

    engine.submit = noted  # type: ignore[method-assign]
    return seen


@pytest.fixture
async def cold(gateway: RunningGateway, registry: FakeRegistry) -> str:
    """A model that waits for `registry.released` to be loaded."""
    registry.models[COLD] = model_message(COLD)
    registry.tell(pb.Change(model=registry.models[COLD]))
    await until(lambda: COLD in gateway.gateway.watcher.snapshot.models)
    registry.hold_loads = True
    return COLD


async def test_a_reply_has_output_statistics_and_an_id(gateway: RunningGateway, registry: FakeRegistry) -> None:
    await warm(gateway, registry, reasoning="let me see", text="four five")
    reply = (await ask(gateway)).json()
    assert set(reply) == {"model_instance_id", "output", "stats", "response_id"}
    assert reply["model_instance_id"] == KEY
    assert reply["output"] == [
        {"type": "reasoning", "content": "let me see"},
        {"type": "message", "content": "four five"},
    ]
    stats = reply["stats"]
    assert set(stats) == FIGURES
    assert (stats["input_tokens"], stats["total_output_tokens"], stats["reasoning_output_tokens"]) == (3, 5, 3)
    assert reply["response_id"].startswith("resp_")


async def test_a_stream_reports_everything_in_order_and_agrees_with_the_whole_reply(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    await warm(gateway, registry, reasoning="let me see", text="four five")
    whole = (await ask(gateway)).json()
    reply = await ask(gateway, stream=True)
    assert reply.headers["content-type"].startswith("text/event-stream")
    *events, (last, end) = joined(events_of(reply.text))
    assert events == [
        ("chat.start", {"model_instance_id": KEY}),
        *PROMPT,
        ("reasoning.start", {}),
        ("reasoning.delta", {"content": "let me see"}),
        ("reasoning.end", {}),
        ("message.start", {}),
        ("message.delta", {"content": "four five"}),
        ("message.end", {}),
    ]
    assert last == "chat.end"
    result = end["result"]
    assert {**result, "stats": None, "response_id": None} == {**whole, "stats": None, "response_id": None}
    counted = ("input_tokens", "total_output_tokens", "reasoning_output_tokens")
    assert [result["stats"][name] for name in counted] == [whole["stats"][name] for name in counted]
    assert set(result["stats"]) == FIGURES


async def test_the_load_of_a_cold_model_is_reported_as_the_registry_reports_it(
    gateway: RunningGateway, registry: FakeRegistry, cold: str
) -> None:
    events: list[NamedEvent] = []
    async with gateway.client() as http:
        streaming = http.stream("POST", PATH, json={**STREAM, "model": cold})
        opening = asyncio.create_task(streaming.__aenter__())
        await asyncio.wait_for(registry.asked.wait(), PATIENCE)
        registry.set_instance(pb.Instance(id=f"{cold}:2", model_key=cold, state=pb.STARTING))
        frames = frames_of(await asyncio.wait_for(opening, PATIENCE))
        events += [await anext(frames), await anext(frames)]
        which = {"model_instance_id": f"{cold}:2"}
        assert events == [("chat.start", which), ("model_load.start", which)]
        for progress in (0.25, 0.75):
            loading = pb.Instance(id=f"{cold}:2", model_key=cold, state=pb.LOADING, load_progress=progress)
            registry.set_instance(loading)
            assert await anext(frames) == ("model_load.progress", {**which, "progress": progress})
        del registry.instances[f"{cold}:2"]
        registry.released.set()
        rest = [frame async for frame in frames]
        await streaming.__aexit__(None, None, None)
    assert rest[0] == ("model_load.progress", {**which, "progress": 1.0})
    assert rest[1] == ("model_load.end", {**which, "load_time_seconds": 0.25})
    assert joined(rest[2:])[:3] == PROMPT
    assert names(joined(rest))[5:] == ["message.start", "message.delta", "message.end", "chat.end"]
    assert rest[-1][1]["result"]["stats"]["model_load_time_seconds"] == 0.25
    assert registry.loads == 1


async def frames_of(reply: httpx.Response) -> AsyncIterator[NamedEvent]:
    text = ""
    async for piece in reply.aiter_text():
        text += piece
        while "\n\n" in text:
            frame, _, text = text.partition("\n\n")
            (event,) = events_of(f"{frame}\n\n")
            yield event


async def test_a_load_in_progress_is_reported_too(gateway: RunningGateway, registry: FakeRegistry) -> None:
    reply = await ask(gateway, stream=True)
    events = events_of(reply.text)
    assert names(events)[:4] == ["chat.start", "model_load.start", "model_load.progress", "model_load.end"]
    assert events[0][1] == {"model_instance_id": KEY}
    whole = (await ask(gateway)).json()
    assert "model_load_time_seconds" not in whole["stats"]  # it is loaded by now


async def test_a_reply_that_is_not_streamed_reports_its_load_time(gateway: RunningGateway) -> None:
    assert (await ask(gateway)).json()["stats"]["model_load_time_seconds"] == 0.25


async def test_a_rejected_load_is_an_error_instead_of_a_stream(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.fail_with = InsufficientMemory("It needs 9 GiB.")
    reply = await ask(gateway, stream=True)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "30")
    assert reply.json()["error"] == {
        "type": "internal_error",
        "message": "It needs 9 GiB.",
        "code": "insufficient_memory",
    }


async def test_a_load_that_fails_midway_is_an_error_event(
    gateway: RunningGateway, registry: FakeRegistry, cold: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(name: str) -> pb.Instance:
        await registry.released.wait()
        raise InsufficientMemory("It needs 9 GiB.")

    monkeypatch.setattr(registry, "_load", fail)
    registry.set_instance(pb.Instance(id=cold, model_key=cold, state=pb.LOADING, load_progress=0.5))
    await until(lambda: gateway.gateway.watcher.snapshot.instances)
    asking = asyncio.create_task(ask(gateway, model=cold, stream=True))
    await asyncio.wait_for(registry.asked.wait(), PATIENCE)
    registry.released.set()
    events = events_of((await asyncio.wait_for(asking, PATIENCE)).text)
    assert names(events) == ["chat.start", "model_load.start", "model_load.progress", "error", "chat.end"]
    assert events[-2][1]["error"]["code"] == "insufficient_memory"
    assert "response_id" not in events[-1][1]["result"]
    assert busy(gateway) == 0


async def test_a_rejection_by_the_worker_is_an_error_event_only_after_a_load(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    long = {"input": "word " * 5000, "stream": True}
    cold = events_of((await ask(gateway, **long)).text)
    assert names(cold)[-3:] == ["model_load.end", "error", "chat.end"]
    assert cold[-2][1]["error"] == {**cold[-2][1]["error"], "code": "context_length_exceeded"}
    await until(lambda: gateway.gateway.watcher.snapshot.instances)
    refused = await ask(gateway, **long)
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request")


async def test_a_chat_can_be_continued_from_any_of_its_responses(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    prompts = await warm(gateway, registry)
    root = (await ask(gateway, system_prompt="Be brief.")).json()["response_id"]
    left = (await ask(gateway, input="left", previous_response_id=root)).json()["response_id"]
    right = await ask(gateway, input="right", previous_response_id=root, system_prompt="Rhyme.", stream=True)
    right_id = events_of(right.text)[-1][1]["result"]["response_id"]
    await ask(gateway, input="left again", previous_response_id=left)
    await ask(gateway, input="right again", previous_response_id=right_id)
    chats = [[(each["role"], each["content"]) for each in prompt.messages] for prompt in prompts]
    first = [("user", "one two three"), ("assistant", "one two three")]
    brief, rhyme = ("system", "Be brief."), ("system", "Rhyme.")
    assert chats == [
        [brief, first[0]],
        [brief, *first, ("user", "left")],
        [rhyme, *first, ("user", "right")],
        [brief, *first, ("user", "left"), ("assistant", "left"), ("user", "left again")],
        [rhyme, *first, ("user", "right"), ("assistant", "right"), ("user", "right again")],
    ]


async def test_earlier_reasoning_is_passed_to_the_template(gateway: RunningGateway, registry: FakeRegistry) -> None:
    prompts = await warm(gateway, registry, reasoning="hm")
    first = (await ask(gateway)).json()["response_id"]
    await ask(gateway, input="go on", previous_response_id=first)
    assert prompts[1].messages[1] == {
        "role": "assistant",
        "content": "one two three",
        "reasoning_content": "hm",
    }


@pytest.mark.parametrize("unknown", ["resp_" + "0" * 32, "resp_1", "", "a\0b", "x" * 5000])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_response_is_not_found(gateway: RunningGateway, unknown: str, stream: bool) -> None:
    reply = await ask(gateway, previous_response_id=unknown, stream=stream)
    assert reply.status_code == 404
    error = reply.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request", "response_not_found")
    assert error["param"] == "previous_response_id"


async def test_another_keys_response_is_not_found(registry: FakeRegistry) -> None:
    async with (
        running_gateway(registry, api_key="first") as one,
        running_gateway(registry, api_key="second") as two,
        one.client(headers={"authorization": "Bearer first"}) as mine,
        two.client(headers={"authorization": "Bearer second"}) as theirs,
    ):
        body = {**CHAT, "previous_response_id": (await mine.post(PATH, json=CHAT)).json()["response_id"]}
        assert (await mine.post(PATH, json=body)).status_code == 200
        assert (await theirs.post(PATH, json=body)).status_code == 404


async def test_a_response_that_is_not_stored_has_no_id(gateway: RunningGateway, registry: FakeRegistry) -> None:
    whole = await ask(gateway, store=False)
    streamed = await ask(gateway, store=False, stream=True)
    assert "response_id" not in whole.json()
    assert "response_id" not in events_of(streamed.text)[-1][1]["result"]
    assert registry.responses == {}


async def test_without_a_registry_answers_are_given_but_cannot_be_continued(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    await warm(gateway, registry)
    kept = (await ask(gateway)).json()["response_id"]
    await registry.go_away()
    await until(lambda: not gateway.gateway.watcher.connected)
    whole = (await ask(gateway)).json()
    assert whole["output"] == [{"type": "message", "content": "one two three"}]
    assert "response_id" not in whole
    assert "response_id" not in events_of((await ask(gateway, stream=True)).text)[-1][1]["result"]
    refused = await ask(gateway, previous_response_id=kept, stream=True)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")


async def test_a_worker_that_dies_is_an_error_event_followed_by_the_end(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    await warm(gateway, registry, hang_after_tokens=1)
    text = ""
    async with gateway.client() as http, http.stream("POST", PATH, json=STREAM) as reply:
        async for piece in reply.aiter_text():
            text += piece
            if "message.delta" in text and KEY in registry.workers:
                await registry.kill_worker(KEY)
    events = joined(events_of(text))
    assert names(events)[-4:] == ["message.start", "message.delta", "error", "chat.end"]
    assert events[-2][1]["error"]["code"] == "worker_lost"
    result = events[-1][1]["result"]
    content = events[-3][1]["content"]
    assert result["output"] == [{"type": "message", "content": content}]
    assert (result["model_instance_id"], result["stats"]["input_tokens"]) == (KEY, 3)
    assert result["stats"]["total_output_tokens"] == len(content.split())
    assert "response_id" not in result
    assert registry.responses == {}
    assert busy(gateway) == 0


async def test_a_prompt_that_another_worker_restarts_is_reported_once(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    await warm(gateway, registry, hang_after_tokens=0)
    text = ""
    async with gateway.client() as http, http.stream("POST", PATH, json=STREAM) as reply:
        async for piece in reply.aiter_text():
            text += piece
            if '"progress":0.6' in text and registry.script:
                registry.script = {}
                await registry.kill_worker(KEY)
    events = events_of(text)
    assert [values["progress"] for name, values in events if name.endswith(".progress")] == [2 / 3, 1.0]
    assert names(events).count("prompt_processing.end") == 1
    assert names(joined(events))[-4:] == ["message.start", "message.delta", "message.end", "chat.end"]


def busy(gateway: RunningGateway) -> int:
    admission = gateway.gateway.admission
    return admission.waiting + admission.active


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_disconnect_stops_the_work(gateway: RunningGateway, registry: FakeRegistry, body: Any) -> None:
    await warm(gateway, registry, text="word " * 100_000, step_seconds=0.001)
    figures = registry.workers[KEY].engine.figures
    _, writer = await gateway.raw(post_bytes(PATH, body))
    await until(lambda: figures().active == 1)
    writer.close()
    await until(lambda: figures().active == 0 and busy(gateway) == 0)
    assert registry.responses == {}


@pytest.mark.parametrize("seen", [False, True])
async def test_a_disconnect_ends_the_wait_for_a_load(
    gateway: RunningGateway, registry: FakeRegistry, cold: str, seen: bool
) -> None:
    """Before the stream has begun, and in its load."""
    reader, writer = await gateway.raw(post_bytes(PATH, {**STREAM, "model": cold}))
    await asyncio.wait_for(registry.asked.wait(), PATIENCE)
    if seen:
        registry.set_instance(pb.Instance(id=cold, model_key=cold, state=pb.LOADING))
        await asyncio.wait_for(reader.readuntil(b"model_load.start"), PATIENCE)
    writer.close()
    await asyncio.wait_for(registry.abandoned.wait(), PATIENCE)
    await until(lambda: busy(gateway) == 0)
    registry.released.set()


async def test_stopping_the_server_during_a_load_is_an_error_event(
    gateway: RunningGateway, registry: FakeRegistry, cold: str
) -> None:
    registry.set_instance(pb.Instance(id=cold, model_key=cold, state=pb.LOADING))
    await until(lambda: gateway.gateway.watcher.snapshot.instances)
    asking = asyncio.create_task(ask(gateway, model=cold, stream=True))
    await asyncio.wait_for(registry.asked.wait(), PATIENCE)
    await gateway.gateway.drain(0.05)
    events = events_of((await asyncio.wait_for(asking, PATIENCE)).text)
    assert names(events) == ["chat.start", "model_load.start", "error", "chat.end"]
    assert events[2][1]["error"]["code"] == "draining"
    registry.released.set()


async def test_settings_reach_the_worker_and_the_load(gateway: RunningGateway, registry: FakeRegistry) -> None:
    reply = await ask(gateway, context_length=512, max_output_tokens=2, temperature=0.1, ttl=60)
    assert reply.json()["output"] == [{"type": "message", "content": "one two"}]
    assert [(each.load.context_length, each.ttl_seconds) for each in registry.ensure_requests] == [(512, 60)]
    async with gateway.client() as http:
        echo = await http.post(PATH, json={**CHAT, "temperature": 0.1}, headers={"x-atelier-settings": "echo"})
    assert json.loads(echo.headers["x-atelier-settings"])["temperature"] == {"value": 0.1, "origin": "request"}


@pytest.mark.parametrize(
    ("reasoning", "arguments"),
    [
        (None, {}),
        ("off", {"enable_thinking": False, "thinking_budget": 0}),
        ("on", {"enable_thinking": True}),
        ("low", {"enable_thinking": True, "reasoning_effort": "low"}),
        ("high", {"enable_thinking": True, "reasoning_effort": "high"}),
    ],
)
async def test_the_reasoning_option_is_passed_to_the_template(
    gateway: RunningGateway, registry: FakeRegistry, reasoning: str | None, arguments: dict[str, Any]
) -> None:
    prompts = await warm(gateway, registry)
    assert (await ask(gateway, reasoning=reasoning)).status_code == 200
    (prompt,) = prompts
    assert isinstance(prompt, ChatPrompt)
    assert prompt.arguments == arguments


async def test_input_items_become_one_message(gateway: RunningGateway, registry: FakeRegistry) -> None:
    prompts = await warm(gateway, registry)
    items = [{"type": "message", "content": "one"}, {"type": "text", "content": "two"}]
    assert (await ask(gateway, input=items)).status_code == 200
    assert prompts[0].messages == [{"role": "user", "content": "one\ntwo"}]


@pytest.mark.parametrize(
    ("fields", "status", "kind", "param"),
    [
        ({"model": "nobody"}, 404, "model_not_found", "model"),
        ({"model": None}, 400, "invalid_request", "model"),
        ({"input": None}, 400, "invalid_request", "input"),
        ({"input": 5}, 400, "invalid_request", "input"),
        ({"input": []}, 400, "invalid_request", "input"),
        ({"input": [{"type": "text"}]}, 400, "invalid_request", "input[0].content"),
        ({"input": [{"type": "video"}]}, 400, "invalid_request", "input[0].type"),
        ({"input": [{"type": "image", "data_url": "data:,"}]}, 400, "invalid_request", "input[0].data_url"),
        ({"input": [{"type": "image", "data_url": "http://a/b"}]}, 400, "invalid_request", "input[0].data_url"),
        ({"input": [{"type": "image"}]}, 400, "invalid_request", "input[0].data_url"),
        ({"integrations": ["mcp/files"]}, 400, "invalid_request", "integrations[0]"),
        ({"integrations": ["files"]}, 400, "not_implemented", "integrations[0]"),
        ({"integrations": "mcp/files"}, 400, "invalid_request", "integrations"),
        ({"temperature": -1}, 400, "invalid_request", "temperature"),
        ({"temperature": "warm"}, 400, "invalid_request", "temperature"),
        ({"top_p": 1.5}, 400, "invalid_request", "top_p"),
        ({"top_k": 2**63}, 400, "invalid_request", "top_k"),
        ({"min_p": -1}, 400, "invalid_request", "min_p"),
        ({"repeat_penalty": 0}, 400, "invalid_request", "repeat_penalty"),
        ({"max_output_tokens": 0}, 400, "invalid_request", "max_output_tokens"),
        ({"context_length": 1}, 400, "invalid_request", "context_length"),
        ({"reasoning": "much"}, 400, "invalid_request", "reasoning"),
        ({"reasoning": True}, 400, "invalid_request", "reasoning"),
        ({"stream": "yes"}, 400, "invalid_request", "stream"),
        ({"store": 1}, 400, "invalid_request", "store"),
        ({"system_prompt": ["a"]}, 400, "invalid_request", "system_prompt"),
        ({"previous_response_id": 7}, 400, "invalid_request", "previous_response_id"),
        ({"preset": "none"}, 404, "invalid_request", "preset"),
        ({"draft_model": "other"}, 400, "invalid_request", "draft_model"),
        ({"ttl": -7}, 400, "invalid_request", "ttl"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_invalid_input_is_rejected_before_anything_is_loaded(
    gateway: RunningGateway,
    registry: FakeRegistry,
    fields: dict[str, Any],
    status: int,
    kind: str,
    param: str,
    stream: bool,
) -> None:
    body = {"stream": stream, **fields}
    reply = await ask(gateway, **body)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert (error["type"], error["param"]) == (kind, param)
    assert set(error) == {"type", "message", "code", "param"}
    assert registry.ensured == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"model": "tiny", "input": "a", "temperature": NaN}'])
async def test_an_invalid_body_is_rejected(gateway: RunningGateway, content: bytes) -> None:
    async with gateway.client() as http:
        reply = await http.post(PATH, content=content)
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request")


async def test_a_missing_key_is_reported_in_the_same_form(registry: FakeRegistry) -> None:
    async with running_gateway(registry, api_key="secret") as gateway, gateway.client() as http:
        reply = await http.post(PATH, json=CHAT)
    assert (reply.status_code, reply.json()["error"]["type"]) == (401, "invalid_request")


async def test_a_request_keeps_its_id(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        reply = await http.post(PATH, json=STREAM, headers={"x-request-id": "req-7"})
    assert reply.headers["x-request-id"] == "req-7"
