"""Workers that die, registries that stop, clients that disconnect, overload, and shutdown."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog

from atelier.config import Config
from atelier.errors import Draining
from gateway.server import Gateway
from protos import registry_pb2 as pb
from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, events_of, post_bytes, running_gateway, until

CHAT = {"model": KEY, "messages": [{"role": "user", "content": "one two three"}]}
STREAM = {**CHAT, "stream": True}
TEXT = {"model": KEY, "prompt": "one two three"}
FORMED_AS_OPENAIS = [
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", TEXT),
    ("/api/v0/chat/completions", CHAT),
    ("/api/v0/completions", TEXT),
]


async def ask(http: httpx.AsyncClient, body: Any = CHAT) -> httpx.Response:
    return await http.post("/v1/chat/completions", json=body)


@contextlib.asynccontextmanager
async def asking(gateway: RunningGateway, body: Any = CHAT) -> AsyncIterator["asyncio.Task[httpx.Response]"]:
    """A request in progress."""
    async with gateway.client() as http:
        task = asyncio.create_task(ask(http, body))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])


def figures(registry: FakeRegistry, instance: str = KEY) -> tuple[int, int]:
    found = registry.workers[instance].engine.figures()
    return found.active, found.queued


def waiting_or_active(gateway: RunningGateway) -> int:
    admission = gateway.gateway.admission
    return admission.waiting + admission.active


async def instance_known(gateway: RunningGateway, registry: FakeRegistry) -> None:
    """An instance is ready, and the gateway knows it: no load is requested."""
    await registry.start_instance()
    await until(lambda: gateway.gateway.watcher.snapshot.instances)


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_worker_lost_before_the_first_text_is_replaced_without_an_error(
    gateway: RunningGateway, registry: FakeRegistry, body: Any
) -> None:
    registry.script = {"hold": True}
    await instance_known(gateway, registry)
    async with asking(gateway, body) as request:
        await until(lambda: gateway.gateway.admission.active == 1)
        registry.script = {}
        await registry.kill_worker(KEY)
        reply = await asyncio.wait_for(request, PATIENCE)
    assert reply.status_code == 200
    assert "three" in reply.text
    assert registry.loads == 1


async def test_a_lost_workers_requests_move_to_another_instance(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    await instance_known(gateway, registry)
    registry.script = {"hold": True}
    await registry.start_instance(id="other")
    await until(lambda: len(gateway.gateway.watcher.snapshot.instances) == 2)
    async with asking(gateway, CHAT | {"model": KEY}) as first, asking(gateway) as second:
        await until(lambda: registry.workers["other"].engine.figures().queued == 1)
        await registry.kill_worker("other")
        replies = [await asyncio.wait_for(each, PATIENCE) for each in (first, second)]
    assert [reply.status_code for reply in replies] == [200, 200]
    assert registry.loads == 0


@pytest.mark.parametrize(("path", "body"), FORMED_AS_OPENAIS)
async def test_a_worker_lost_in_mid_stream_is_an_error_event_and_no_done(
    gateway: RunningGateway, registry: FakeRegistry, path: str, body: Any
) -> None:
    registry.script = {"hang_after_tokens": 1}
    await instance_known(gateway, registry)
    async with gateway.client() as http, http.stream("POST", path, json={**body, "stream": True}) as reply:
        text = ""
        async for piece in reply.aiter_text():
            text += piece
            if ':"one' in text and KEY in registry.workers:
                await registry.kill_worker(KEY)
    *_, last = events_of(text)
    assert last["error"]["code"] == "worker_lost"
    assert "[DONE]" not in text
    assert registry.loads == 0
    assert waiting_or_active(gateway) == 0


async def test_a_worker_lost_late_is_replaced_while_nothing_was_sent(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    registry.script = {"hang_after_tokens": 2}
    await instance_known(gateway, registry)
    async with asking(gateway) as request:
        await until(lambda: registry.workers[KEY].engine.figures().steps >= 2)
        registry.script = {}
        await registry.kill_worker(KEY)
        reply = await asyncio.wait_for(request, PATIENCE)
    assert reply.json()["choices"][0]["message"]["content"] == "one two three"


async def test_two_losses_are_an_error(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"hold": True}
    await instance_known(gateway, registry)
    async with asking(gateway) as request:
        for _ in range(2):
            await until(lambda: gateway.gateway.workers.in_flight().get(KEY) and KEY in registry.workers)
            await until(lambda: figures(registry)[1] == 1)
            await registry.kill_worker(KEY)
        reply = await asyncio.wait_for(request, PATIENCE)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "worker_lost")


async def test_a_lost_worker_that_the_registry_still_lists_is_waited_for(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    registry.script = {"hold": True}
    before = await registry.start_instance()
    async with asking(gateway) as request:
        await until(lambda: gateway.gateway.admission.active == 1)
        worker = registry.workers.pop(KEY)
        await worker._server.stop(None)  # the snapshot still says that it is ready
        await until(lambda: registry.ensured == [KEY])  # and so does the registry when asked
        registry.script = {}
        registry.set_instance(pb.Instance(id=KEY, model_key=KEY, state=pb.RESTARTING))
        reply = await asyncio.wait_for(request, PATIENCE)
        await worker.stop(0)
    assert reply.status_code == 200
    assert registry.instances[KEY].token != before.token


async def test_other_changes_do_not_shorten_the_wait_for_a_restart(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    registry.script = {"hold": True}
    await instance_known(gateway, registry)
    async with asking(gateway) as request:
        await until(lambda: gateway.gateway.admission.active == 1)
        worker = registry.workers.pop(KEY)
        await worker._server.stop(None)
        for asked in range(1, 20):
            await until(lambda asked=asked: len(registry.ensured) >= asked)
            registry.tell(pb.Change(model=registry.models[KEY]))
        registry.script = {}
        registry.set_instance(pb.Instance(id=KEY, model_key=KEY, state=pb.RESTARTING))
        assert (await asyncio.wait_for(request, PATIENCE)).status_code == 200
        await worker.stop(0)


async def test_a_restart_that_does_not_happen_is_an_error(
    gateway: RunningGateway, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.core.routing.RESTART_SECONDS", 0.4)  # less than one wait for a change
    registry.script = {"hold": True}
    await instance_known(gateway, registry)
    async with asking(gateway) as request:
        await until(lambda: gateway.gateway.admission.active == 1)
        worker = registry.workers.pop(KEY)
        await worker._server.stop(None)
        reply = await asyncio.wait_for(request, PATIENCE)
        await worker.stop(0)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "worker_lost")
    assert len(registry.ensured) == 2


async def test_a_prompt_too_large_for_the_worker_does_not_affect_other_streams(
    gateway: RunningGateway, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.core.worker_connection.MOST_SUBMIT_BYTES", 4096)
    registry.script = {"hold": True}
    await instance_known(gateway, registry)
    async with asking(gateway) as other, gateway.client() as http:
        await until(lambda: gateway.gateway.admission.active == 1)
        reply = await ask(http, {**CHAT, "messages": [{"role": "user", "content": "x" * 5000}]})
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "payload_too_large")
        assert figures(registry) == (0, 1)
        registry.workers[KEY].engine.release()  # type: ignore[attr-defined]
        assert (await asyncio.wait_for(other, PATIENCE)).status_code == 200
    assert waiting_or_active(gateway) == 0


async def test_a_change_that_cannot_be_applied_is_logged_and_the_watch_restarts(
    gateway: RunningGateway, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = gateway.gateway.watcher
    with structlog.testing.capture_logs() as lines:
        with monkeypatch.context() as broken:
            broken.setattr("gateway.fleet.watcher.apply", lambda *_: 1 / 0)
            registry.tell(pb.Change(model=registry.models[KEY]))
            await until(lambda: not watcher.connected)
        await until(lambda: watcher.connected)
    assert "watch_failed" in [line["event"] for line in lines]


async def test_a_registry_that_starts_later_causes_no_warning(registry: FakeRegistry) -> None:
    await registry.go_away()
    gateway = Gateway(Config(registry_address=registry.target))
    with structlog.testing.capture_logs() as lines:
        await gateway.start()
        await until(lambda: lines)
        await registry.start()
        await until(lambda: gateway.watcher.connected)
        await registry.go_away()
        await until(lambda: not gateway.watcher.connected)
        await gateway.close()
    levels = [line["log_level"] for line in lines if line["event"] == "registry_away"]
    assert levels[0] == "info"
    assert [level for level in levels if level != "info"] == ["warning"]


async def test_an_import_may_take_longer_than_a_load(gateway: RunningGateway, registry: FakeRegistry) -> None:
    async with gateway.client() as http:
        assert (await http.post("/api/v1/models/import", json={"path": "/m.gguf"})).status_code == 200
    assert registry.import_deadlines == [None]


async def test_a_stopping_model_is_never_proxied_into(gateway: RunningGateway, registry: FakeRegistry) -> None:
    await instance_known(gateway, registry)
    await registry.start_instance(id="other")
    await until(lambda: len(gateway.gateway.watcher.snapshot.instances) == 2)
    registry.workers["other"].status.draining()  # which the gateway does not know yet
    async with gateway.client() as http:
        replies = [await ask(http) for _ in range(4)]
    assert [reply.status_code for reply in replies] == [200] * 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), FORMED_AS_OPENAIS)
async def test_a_disconnect_frees_the_sequence(
    gateway: RunningGateway, registry: FakeRegistry, path: str, body: Any, stream: bool
) -> None:
    registry.script = {"text": "word " * 100_000, "step_seconds": 0.001}
    await instance_known(gateway, registry)
    _, writer = await gateway.raw(post_bytes(path, {**body, "stream": stream}))
    await until(lambda: figures(registry) == (1, 0))
    writer.close()
    await until(lambda: figures(registry) == (0, 0))
    await until(lambda: waiting_or_active(gateway) == 0)
    assert gateway.gateway.workers.in_flight()[KEY] == 0


async def test_a_disconnect_during_a_load_ends_the_wait(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.hold_loads = True
    _, writer = await gateway.raw(post_bytes("/v1/chat/completions", STREAM))
    await asyncio.wait_for(registry.asked.wait(), PATIENCE)
    writer.close()
    await asyncio.wait_for(registry.abandoned.wait(), PATIENCE)
    await until(lambda: waiting_or_active(gateway) == 0)
    registry.released.set()


async def test_a_client_that_does_not_read_delays_no_other(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"text": "word " * 60_000}
    await instance_known(gateway, registry)
    _, writer = await gateway.raw(post_bytes("/v1/chat/completions", STREAM))
    await until(lambda: figures(registry)[0] == 1)
    async with gateway.client() as http:
        reply = await ask(http, {**CHAT, "max_tokens": 20})
    assert reply.json()["usage"]["completion_tokens"] == 20
    writer.close()
    await until(lambda: waiting_or_active(gateway) == 0)


async def test_only_requests_over_the_limit_are_rejected_with_retry_after(registry: FakeRegistry) -> None:
    registry.script = {"hold": True}
    await registry.start_instance()
    async with running_gateway(registry, max_queued=5) as gateway, gateway.client() as http:
        requests = [asyncio.create_task(ask(http)) for _ in range(12)]
        await until(lambda: sum(request.done() for request in requests) == 7)
        registry.workers[KEY].engine.release()  # type: ignore[attr-defined]
        replies = [await request for request in requests]
    refused = [reply for reply in replies if reply.status_code == 503]
    assert len(refused) == 7
    assert all(reply.status_code == 200 for reply in replies if reply not in refused)
    assert {reply.json()["error"]["code"] for reply in refused} == {"overloaded"}
    assert all(int(reply.headers["retry-after"]) > 0 for reply in refused)


async def test_two_gateways_load_a_model_once(registry: FakeRegistry) -> None:
    async with (
        running_gateway(registry) as one,
        running_gateway(registry) as two,
        one.client() as first,
        two.client() as second,
    ):
        replies = await asyncio.gather(*(ask(http) for http in [first, second] * 10))
    assert [reply.status_code for reply in replies] == [200] * 20
    assert registry.loads == 1


async def test_loaded_models_are_served_while_the_registry_is_down(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    await instance_known(gateway, registry)
    registry.models["acme/cold"] = pb.Model(key="acme/cold")
    registry.tell(pb.Change(model=registry.models["acme/cold"]))
    await until(lambda: len(gateway.gateway.watcher.snapshot.models) == 2)
    await registry.go_away()
    await until(lambda: not gateway.gateway.watcher.connected)
    async with gateway.client() as http:
        assert (await ask(http)).status_code == 200
        cold = await ask(http, {**CHAT, "model": "acme/cold"})
        assert (cold.status_code, cold.json()["error"]["code"]) == (503, "unavailable")
        change = await http.post("/api/v1/models/load", json={"model": KEY})
        assert (change.status_code, change.json()["error"]["code"]) == (503, "unavailable")
        assert (await http.get("/readyz")).status_code == 200
        await registry.start()
        await until(lambda: gateway.gateway.watcher.connected)
        assert (await ask(http, {**CHAT, "model": "acme/cold"})).status_code == 200


async def test_draining_finishes_running_requests_and_rejects_new_ones(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    registry.script = {"hold": True}
    await instance_known(gateway, registry)
    async with asking(gateway, STREAM) as running, gateway.client() as http:
        await until(lambda: gateway.gateway.admission.active == 1)
        draining = asyncio.create_task(gateway.gateway.drain(PATIENCE))
        await until(lambda: gateway.gateway.admission.draining)
        assert (await http.get("/readyz")).status_code == 503
        assert (await http.get("/healthz")).status_code == 200
        refused = await ask(http)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert "retry-after" in refused.headers
        registry.workers[KEY].engine.release()  # type: ignore[attr-defined]
        await asyncio.wait_for(draining, PATIENCE)
        assert (await running).text.endswith("data: [DONE]\n\n")


async def test_unfinished_streams_get_an_error_event_and_waiting_requests_an_error(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    registry.script = {"hold": True}
    registry.models["acme/cold"] = pb.Model(key="acme/cold")
    registry.tell(pb.Change(model=registry.models["acme/cold"]))
    await until(lambda: len(gateway.gateway.watcher.snapshot.models) == 2)
    await instance_known(gateway, registry)
    registry.hold_loads = True
    cold = {**STREAM, "model": "acme/cold"}
    async with asking(gateway, STREAM) as running, asking(gateway, CHAT) as whole, asking(gateway, cold) as waiting:
        await until(lambda: gateway.gateway.admission.active == 2)
        await until(lambda: registry.ensured == ["acme/cold"])
        await gateway.gateway.drain(0.05)
        streamed = (await asyncio.wait_for(running, PATIENCE)).text
        refused = [await asyncio.wait_for(each, PATIENCE) for each in (whole, waiting)]
    assert events_of(streamed)[-1]["error"]["code"] == Draining.code
    assert "[DONE]" not in streamed
    assert [(reply.status_code, reply.json()["error"]["code"]) for reply in refused] == [(503, "draining")] * 2
    assert waiting_or_active(gateway) == 0
