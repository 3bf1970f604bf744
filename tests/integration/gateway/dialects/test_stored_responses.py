"""Stored responses: retrieved, continued, listed, deleted; and their owners."""

from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest

from atelier.errors import DiskFull
from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, running_gateway, until
from tests.support.gateway.response_events import checked_events, checked_response


@pytest.fixture
async def two_owners(registry: FakeRegistry) -> Any:
    """Clients of two gateways with different keys and one registry, and one of a third with the first's key."""
    async with AsyncExitStack() as stack:
        clients = []
        for key in ("alice", "bob", "alice"):
            gateway = await stack.enter_async_context(running_gateway(registry, api_key=key))
            http = await stack.enter_async_context(gateway.client())
            client = openai.AsyncOpenAI(
                base_url=f"{gateway.url}/v1", api_key=key, timeout=PATIENCE, max_retries=0, http_client=http
            )
            clients.append(client)
        yield clients


async def go_away(registry: FakeRegistry, gateway: RunningGateway) -> None:
    await registry.go_away()
    await until(lambda: not gateway.gateway.watcher.connected)


async def test_a_stored_response_equals_the_one_returned(client: openai.AsyncOpenAI) -> None:
    created = await client.responses.create(model=KEY, input="one two", metadata={"a": "b"})
    assert await client.responses.retrieve(created.id) == created


async def test_a_streamed_response_is_stored_before_its_last_event(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        reply = await http.post("/v1/responses", json={"model": KEY, "input": "one", "stream": True})
        last = checked_events(reply.text)[-1].response
        found = await http.get(f"/v1/responses/{last.id}")
    assert checked_response(found.json()) == last
    assert found.json()["store"] is True


async def test_a_conversation_is_continued_turn_by_turn(client: openai.AsyncOpenAI, registry: FakeRegistry) -> None:
    first = await client.responses.create(model=KEY, input="one two")
    second = await client.responses.create(model=KEY, input="three", previous_response_id=first.id)
    third = await client.responses.create(model=KEY, input="four", previous_response_id=second.id, store=False)
    assert third.usage
    assert third.usage.input_tokens == 1  # the scripted engine counts the last message of the user
    items = await client.responses.input_items.list(second.id, order="asc")
    assert [(item.role, item.content[0].text) for item in items.data] == [  # type: ignore[union-attr]
        ("user", "one two"),
        ("assistant", "one two"),
        ("user", "three"),
    ]
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(third.id)


async def test_input_items_are_listed_in_pages(client: openai.AsyncOpenAI) -> None:
    given: Any = [{"role": "user", "content": str(number)} for number in range(5)]
    created = await client.responses.create(model=KEY, input=given)
    first = await client.responses.input_items.list(created.id, limit=2)
    assert ([item.content[0].text for item in first.data], first.has_more) == (["4", "3"], True)  # type: ignore[union-attr]
    everything = [item.content[0].text async for item in client.responses.input_items.list(created.id, limit=2)]  # type: ignore[union-attr]
    assert everything == ["4", "3", "2", "1", "0"]
    for query, param in (({"limit": 0}, "limit"), ({"order": "up"}, "order"), ({"after": "msg_x"}, "after")):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.input_items.list(created.id, **query)  # type: ignore[arg-type]
        assert caught.value.param == param


async def test_a_deleted_response_is_gone_and_cannot_be_continued(client: openai.AsyncOpenAI) -> None:
    first = await client.responses.create(model=KEY, input="one")
    second = await client.responses.create(model=KEY, input="two", previous_response_id=first.id)
    await client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError) as caught:
        await client.responses.retrieve(first.id)
    assert caught.value.code == "response_not_found"
    with pytest.raises(openai.NotFoundError):
        await client.responses.delete(first.id)
    for id in (first.id, second.id):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model=KEY, input="three", previous_response_id=id)
        assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")


async def test_a_key_cannot_access_responses_of_another(two_owners: Any) -> None:
    alice, bob, alice_elsewhere = two_owners
    created = await alice.responses.create(model=KEY, input="secret")
    for attempt in (bob.responses.retrieve, bob.responses.delete, bob.responses.cancel, bob.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            await attempt(created.id)
    with pytest.raises(openai.BadRequestError, match="no response"):
        await bob.responses.create(model=KEY, input="and?", previous_response_id=created.id)
    reference = {"type": "item_reference", "id": created.output[0].id}
    with pytest.raises(openai.BadRequestError, match="no stored response has an item"):
        await bob.responses.create(model=KEY, input=[reference])
    assert (await alice_elsewhere.responses.retrieve(created.id)).output_text == "secret"
    continued = await alice_elsewhere.responses.create(model=KEY, input="and?", previous_response_id=created.id)
    assert continued.status == "completed"


async def test_the_registry_learns_nothing_about_the_key(two_owners: Any, registry: FakeRegistry) -> None:
    await two_owners[0].responses.create(model=KEY, input="one")
    [stored] = registry.responses.values()
    assert len(stored.owner) == 64
    assert "alice" not in stored.owner


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_without_a_registry_says_that_it_was_not_stored(
    registry: FakeRegistry, gateway: RunningGateway, stream: bool
) -> None:
    await registry.start_instance()
    await until(lambda: gateway.gateway.watcher.snapshot.instances)
    await go_away(registry, gateway)
    async with gateway.client() as http:
        reply = await http.post("/v1/responses", json={"model": KEY, "input": "one two", "stream": stream})
    response: Any = checked_events(reply.text)[-1].response if stream else checked_response(reply.json())
    assert (response.status, response.output_text, response.store) == ("completed", "one two", False)


async def test_operations_that_need_the_registry_are_rejected_without_it(
    registry: FakeRegistry, gateway: RunningGateway, client: openai.AsyncOpenAI
) -> None:
    created = await client.responses.create(model=KEY, input="one")
    await go_away(registry, gateway)
    async with gateway.client() as http:
        body = {"model": KEY, "input": "two"}
        replies = [
            await http.post("/v1/responses", json={**body, "previous_response_id": created.id, "stream": True}),
            await http.post("/v1/responses", json={**body, "background": True}),
            await http.get(f"/v1/responses/{created.id}"),
            await http.delete(f"/v1/responses/{created.id}"),
        ]
    assert [(reply.status_code, reply.json()["error"]["code"]) for reply in replies] == [(503, "unavailable")] * 4
    assert all("retry-after" in reply.headers for reply in replies)


async def test_an_answer_that_the_registry_rejects_says_that_it_was_not_stored(
    registry: FakeRegistry, gateway: RunningGateway
) -> None:
    await registry.start_instance()
    await until(lambda: gateway.gateway.watcher.snapshot.instances)
    registry.fail_with = DiskFull()
    async with gateway.client() as http:
        reply = await http.post("/v1/responses", json={"model": KEY, "input": "one"})
    assert (reply.status_code, reply.json()["store"]) == (200, False)


async def test_a_response_of_another_dialect_is_not_found(client: openai.AsyncOpenAI, registry: FakeRegistry) -> None:
    created = await client.responses.create(model=KEY, input="one")
    registry.responses[created.id].kind = "lmstudio"
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(created.id)


async def test_invalid_ids_are_a_404(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        for id in ("resp_x", "..%2F..", "%00", "x" * 2000):
            assert (await http.get(f"/v1/responses/{id}")).status_code == 404
        refused = await http.get("/v1/responses/resp_x?stream=true")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "stream")
