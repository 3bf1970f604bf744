"""Responses in the background: retrieved later, through any gateway; cancelled; lost with their gateway."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from atelier.errors import Unavailable
from gateway.dialects.responses import background_responses as background
from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, running_gateway, until
from tests.support.gateway.response_events import checked_response


@pytest.fixture
async def elsewhere(registry: FakeRegistry) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of another gateway."""
    async with running_gateway(registry) as gateway, gateway.client() as http:
        yield openai.AsyncOpenAI(
            base_url=f"{gateway.url}/v1", api_key="none", timeout=PATIENCE, max_retries=0, http_client=http
        )


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(background, "SAVE_PAUSES", (0.0, *[0.05] * 100))


async def begin(client: openai.AsyncOpenAI, **more: Any) -> Response:
    return await client.responses.create(model=KEY, input="one two", background=True, **more)


async def wait_for(client: openai.AsyncOpenAI, id: str, *statuses: str) -> Response:
    async with asyncio.timeout(PATIENCE):
        while (response := await client.responses.retrieve(id)).status not in statuses:
            pass
    return response


async def hold(registry: FakeRegistry) -> None:
    registry.script = {"hold": True}
    await registry.start_instance()


async def test_a_background_response_is_returned_at_once_and_completed_later(
    client: openai.AsyncOpenAI, registry: FakeRegistry, gateway: RunningGateway
) -> None:
    await hold(registry)
    queued = await begin(client)
    assert (queued.status, queued.background, queued.output, queued.model) == ("queued", True, [], KEY)
    await wait_for(client, queued.id, "in_progress")
    registry.workers[KEY].engine.release()  # type: ignore[attr-defined]
    done = await wait_for(client, queued.id, "completed")
    assert (done.output_text, done.background) == ("one two", True)
    checked_response(done.to_dict())
    await until(lambda: set(registry.responses) == {queued.id})  # no other trace of it remains
    follow_up = await client.responses.create(model=KEY, input="more", previous_response_id=queued.id)
    assert follow_up.status == "completed"


async def test_another_gateway_returns_its_state(
    client: openai.AsyncOpenAI, elsewhere: openai.AsyncOpenAI, registry: FakeRegistry
) -> None:
    await hold(registry)
    queued = await begin(client)
    await wait_for(elsewhere, queued.id, "in_progress")
    registry.workers[KEY].engine.release()  # type: ignore[attr-defined]
    assert (await wait_for(elsewhere, queued.id, "completed")).output_text == "one two"


async def test_an_unfinished_one_cannot_be_continued(client: openai.AsyncOpenAI, registry: FakeRegistry) -> None:
    await hold(registry)
    queued = await begin(client)
    with pytest.raises(openai.BadRequestError, match="only a finished response"):
        await client.responses.create(model=KEY, input="more", previous_response_id=queued.id)


async def test_a_cancelled_response_frees_its_sequence(
    client: openai.AsyncOpenAI, registry: FakeRegistry, gateway: RunningGateway
) -> None:
    await hold(registry)
    queued = await begin(client)
    await wait_for(client, queued.id, "in_progress")
    cancelled = await client.responses.cancel(queued.id)
    assert (cancelled.status, cancelled.output) == ("cancelled", [])
    assert gateway.gateway.admission.active == 0
    assert (await client.responses.cancel(queued.id)).status == "cancelled"
    assert (await client.responses.retrieve(queued.id)).status == "cancelled"


@pytest.mark.usefixtures("quick_beats")
async def test_another_gateway_can_cancel_a_response(
    client: openai.AsyncOpenAI, elsewhere: openai.AsyncOpenAI, registry: FakeRegistry, gateway: RunningGateway
) -> None:
    await hold(registry)
    queued = await begin(client)
    await wait_for(client, queued.id, "in_progress")
    await elsewhere.responses.cancel(queued.id)
    await wait_for(elsewhere, queued.id, "cancelled")
    assert gateway.gateway.admission.active == 0
    await until(lambda: set(registry.responses) == {queued.id})


async def test_a_response_deleted_while_it_runs_stays_deleted(
    client: openai.AsyncOpenAI, registry: FakeRegistry, gateway: RunningGateway
) -> None:
    await hold(registry)
    queued = await begin(client)
    await client.responses.delete(queued.id)
    assert gateway.gateway.admission.active == 0
    assert registry.responses == {}


@pytest.mark.usefixtures("quick_beats")
async def test_a_response_deleted_by_another_gateway_while_it_runs_stays_deleted(
    client: openai.AsyncOpenAI, elsewhere: openai.AsyncOpenAI, registry: FakeRegistry, gateway: RunningGateway
) -> None:
    await hold(registry)
    queued = await begin(client)
    await wait_for(client, queued.id, "in_progress")
    await elsewhere.responses.delete(queued.id)
    await until(lambda: not registry.responses)
    assert gateway.gateway.admission.active == 0


async def test_only_background_responses_can_be_cancelled(client: openai.AsyncOpenAI) -> None:
    created = await client.responses.create(model=KEY, input="one")
    with pytest.raises(openai.BadRequestError, match="background"):
        await client.responses.cancel(created.id)


async def test_a_failed_response_has_its_error(client: openai.AsyncOpenAI, registry: FakeRegistry) -> None:
    await registry.start_instance(context_length=128)
    queued = await client.responses.create(model=KEY, input="word " * 200, background=True)
    failed = await wait_for(client, queued.id, "failed")
    assert failed.error
    assert (failed.error.code, failed.error.type) == ("invalid_prompt", "context_length_exceeded")


async def test_a_response_whose_gateway_is_gone_has_failed(
    client: openai.AsyncOpenAI, elsewhere: openai.AsyncOpenAI, registry: FakeRegistry
) -> None:
    await hold(registry)
    queued = await begin(client)
    await wait_for(elsewhere, queued.id, "in_progress")  # no beat is due for a while
    run = registry.responses[f"{queued.id}.run"]
    run.age_seconds = background.LOST_SECONDS + 1
    lost = await elsewhere.responses.retrieve(queued.id)
    assert (lost.status, lost.error and lost.error.code) == ("failed", "server_error")
    del registry.responses[f"{queued.id}.run"]
    assert (await elsewhere.responses.cancel(queued.id)).status == "failed"
    checked_response(lost.to_dict())


async def test_a_response_whose_gateway_stops_has_failed(registry: FakeRegistry) -> None:
    await hold(registry)
    async with running_gateway(registry) as gateway, gateway.client() as http:
        body = {"model": KEY, "input": "one", "background": True}
        queued = (await http.post("/v1/responses", json=body)).json()
        await until(lambda: gateway.gateway.admission.active == 1)
        await gateway.gateway.drain(0)
    async with running_gateway(registry) as other, other.client() as http:
        response = (await http.get(f"/v1/responses/{queued['id']}")).json()
    assert (response["status"], response["error"]["type"]) == ("failed", "draining")


@pytest.mark.usefixtures("quick_beats")
async def test_a_result_is_served_from_memory_until_the_registry_returns(
    client: openai.AsyncOpenAI, registry: FakeRegistry, gateway: RunningGateway
) -> None:
    await hold(registry)
    queued = await begin(client)
    await wait_for(client, queued.id, "in_progress")
    registry.fail_with = Unavailable()
    registry.workers[KEY].engine.release()  # type: ignore[attr-defined]
    done = await wait_for(client, queued.id, "completed")  # from the gateway's memory
    registry.fail_with = None
    await until(lambda: not gateway.gateway.background._runs)
    assert await client.responses.retrieve(queued.id) == done
