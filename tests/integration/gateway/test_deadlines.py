"""Requests with timeouts and with priorities."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, events_of, running_gateway, until

HELLO = [{"role": "user", "content": "one two three"}]
CHAT = {"model": KEY, "messages": HELLO}
ENDLESS = {"text": "word " * 100_000, "step_seconds": 0.001}
BODIES = {
    "/v1/chat/completions": CHAT,
    "/api/v0/chat/completions": CHAT,
    "/v1/completions": {"model": KEY, "prompt": "one two"},
}


def idle(gateway: RunningGateway, registry: FakeRegistry) -> bool:
    figures = registry.workers[KEY].engine.figures()
    return not (figures.active or figures.queued or gateway.gateway.admission.active)


@pytest.mark.parametrize("path", BODIES)
async def test_an_answer_that_exceeds_its_timeout_is_a_504(
    gateway: RunningGateway, registry: FakeRegistry, path: str
) -> None:
    registry.script = ENDLESS
    await registry.start_instance()
    async with gateway.client() as http:
        reply = await http.post(path, json={**BODIES[path], "timeout": 0.1})
    assert reply.status_code == 504
    error = reply.json()["error"]
    assert (error["code"], error["param"], error["type"]) == ("timeout", "timeout", "server_error")
    await until(lambda: idle(gateway, registry))


@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_that_exceeds_its_timeout_ends_with_an_error_event_and_no_done(
    gateway: RunningGateway, registry: FakeRegistry, path: str
) -> None:
    registry.script = ENDLESS
    await registry.start_instance()
    async with gateway.client() as http:
        reply = await http.post(path, json={**BODIES[path], "timeout": 0.1, "stream": True})
    assert reply.status_code == 200
    *chunks, last = events_of(reply.text)
    assert last["error"]["code"] == "timeout"
    assert any(chunk["choices"] for chunk in chunks), "what came in time was sent"
    await until(lambda: idle(gateway, registry))


async def test_the_timeout_includes_the_load(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.hold_loads = True
    async with gateway.client() as http:
        reply = await http.post("/v1/chat/completions", json={**CHAT, "timeout": 0.1})
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")
    await asyncio.wait_for(registry.abandoned.wait(), PATIENCE)
    registry.released.set()


async def test_a_stalled_worker_does_not_hold_a_request_beyond_its_timeout(
    gateway: RunningGateway, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.core.generation.MARGIN_SECONDS", 0.05)
    registry.script = {"hold": True}
    await registry.start_instance()
    async with gateway.client() as http:
        reply = await http.post("/v1/chat/completions", json={**CHAT, "timeout": 0.1})
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")
    await until(lambda: idle(gateway, registry))


async def test_an_answer_in_time_is_complete(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        reply = await http.post("/v1/chat/completions", json={**CHAT, "timeout": PATIENCE})
    assert reply.json()["choices"][0]["message"]["content"] == "one two three"


async def test_a_request_that_is_not_admitted_in_time_is_asked_to_retry_later(registry: FakeRegistry) -> None:
    registry.script = ENDLESS
    await registry.start_instance(parallel=1)
    async with running_gateway(registry, queue_timeout=0.1) as gateway, gateway.client() as http:
        busy = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
        await until(lambda: registry.workers[KEY].engine.figures().active == 1)
        reply = await http.post("/v1/chat/completions", json=CHAT)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "queue_timeout")
        assert int(reply.headers["retry-after"]) > 0
        assert not busy.done(), "who has begun is not waiting"
        busy.cancel()
        await asyncio.wait([busy])


async def test_the_more_urgent_request_is_answered_first(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"hold": True, "step_seconds": 0.01}
    await registry.start_instance(parallel=1)
    order: list[int] = []

    async def ask(http: httpx.AsyncClient, priority: int) -> None:
        await http.post("/v1/chat/completions", json={**CHAT, "priority": priority})
        order.append(priority)

    async with gateway.client() as http:
        tasks = []
        for number, priority in enumerate((2, 0, -2), 1):
            tasks.append(asyncio.create_task(ask(http, priority)))
            await until(lambda number=number: registry.workers[KEY].engine.figures().queued == number)
        registry.workers[KEY].engine.release()  # type: ignore[attr-defined]
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    assert order == [-2, 0, 2]


@pytest.mark.parametrize(
    "fields",
    [{"priority": 11}, {"priority": -11}, {"priority": 0.5}, {"timeout": 0}, {"timeout": -1}, {"timeout": 1e9}],
)
async def test_a_priority_or_timeout_out_of_bounds_is_rejected(gateway: RunningGateway, fields: dict[str, Any]) -> None:
    async with gateway.client() as http:
        reply = await http.post("/v1/chat/completions", json={**CHAT, **fields})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, next(iter(fields)))
