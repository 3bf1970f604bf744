"""Responses in the registry: stored per owner, continued, expired, limited."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from atelier.errors import AlreadyExists, AtelierError, InvalidRequest, PayloadTooLarge, ResponseNotFound
from registry.database import open_database
from registry.responses.response_retention import DAY_SECONDS, MOST_BYTES, Responses
from registry.responses.response_rows import Address, ResponseStore, StoredResponse
from tests.integration.registry.conftest import Running, running
from tests.support.registry.registry_client import SECONDS
from tests.support.registry.registry_launcher import FakeLauncher


class Kept:
    """A store of responses whose clock the test sets."""

    def __init__(self, store: ResponseStore, *, most_bytes: int = 2**20) -> None:
        self.now = 1_000_000.0
        self.store = store
        self.responses = Responses(store, days=30, most_bytes=most_bytes, clock=lambda: self.now)

    async def put(self, id: str, previous_id: str | None = None, body: bytes = b"{}") -> None:
        await self.responses.put(StoredResponse(Address(id, "me", "openai"), previous_id, body, self.now))

    async def bodies(self, id: str) -> list[bytes]:
        return [each.body for each in await self.responses.conversation(Address(id, "me", "openai"))]

    async def has(self, *ids: str) -> list[bool]:
        found = [await self.store.get(Address(id, "me", "openai"), 0) for id in ids]
        return [each is not None for each in found]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ResponseStore]:
    database = await open_database(tmp_path / "registry.db")
    yield ResponseStore(database)
    await database.close()


async def test_stored_responses_survive_a_restart(home: Path, launcher: FakeLauncher) -> None:
    async with running(home, launcher) as first:
        await first.client.put_response("r1", body=b'{"a": "\xc3\xa4"}', created_at=12.5, previous_id="r0")
    async with running(home, launcher) as second:
        response = await second.client.get_response("r1")
    assert (response.body, response.created_at, response.previous_id) == (b'{"a": "\xc3\xa4"}', 12.5, "r0")
    assert 0 <= response.age_seconds < SECONDS


async def test_only_its_owner_reads_continues_or_deletes_a_response(registry: Running) -> None:
    client = registry.client
    await client.put_response("r1", owner="me")
    for owner, kind in (("you", "openai"), ("", "openai"), ("me", "lmstudio")):
        for attempt in (client.get_response, client.conversation, client.delete_response):
            with pytest.raises(ResponseNotFound):
                await attempt("r1", owner, kind)
        with pytest.raises(AlreadyExists):
            await client.put_response("r1", owner, kind, body=b"mine now")
    assert (await client.get_response("r1")).body == b"{}"


async def test_a_second_write_replaces_the_first(registry: Running) -> None:
    await registry.client.put_response("r1", body=b"queued")
    await registry.client.put_response("r1", body=b"done")
    assert (await registry.client.get_response("r1")).body == b"done"


async def test_a_conversation_is_returned_whole_and_in_order(registry: Running) -> None:
    client = registry.client
    await client.put_response("a", body=b"1")
    await client.put_response("b", body=b"2", previous_id="a")
    await client.put_response("c", body=b"3", previous_id="b")
    await client.put_response("c2", body=b"another third", previous_id="b")
    assert [each.body for each in await client.conversation("c")] == [b"1", b"2", b"3"]
    assert [each.id for each in await client.conversation("c2")] == ["a", "b", "c2"]


async def test_a_conversation_with_a_missing_response_is_not_returned_in_part(registry: Running) -> None:
    client = registry.client
    await client.put_response("a")
    await client.put_response("b", previous_id="a")
    await client.put_response("stranger", owner="you")
    await client.put_response("c", previous_id="stranger")
    await client.delete_response("a")
    assert (await client.get_response("b")).id == "b"
    for id in ("b", "c"):
        with pytest.raises(ResponseNotFound, match="continues"):
            await client.conversation(id)
    with pytest.raises(ResponseNotFound, match=r'no response "a"'):
        await client.delete_response("a")


async def test_a_cycle_of_responses_terminates(registry: Running) -> None:
    await registry.client.put_response("a", previous_id="b")
    await registry.client.put_response("b", previous_id="a")
    with pytest.raises(AtelierError):
        await registry.client.conversation("a")


@pytest.mark.parametrize(
    ("facts", "error", "param"),
    [
        ({"id": ""}, InvalidRequest, "id"),
        ({"id": "x" * 256}, InvalidRequest, "id"),
        ({"id": "a", "owner": "x" * 256}, InvalidRequest, "owner"),
        ({"id": "a", "kind": ""}, InvalidRequest, "kind"),
        ({"id": "a", "previous_id": "x" * 256}, InvalidRequest, "previous_id"),
        ({"id": "a", "body": bytes(MOST_BYTES + 1)}, PayloadTooLarge, None),
    ],
)
async def test_an_invalid_response_is_rejected(
    registry: Running, facts: dict[str, Any], error: type[AtelierError], param: str | None
) -> None:
    with pytest.raises(error) as caught:
        await registry.client.put_response(**facts)
    assert caught.value.param == param


async def test_a_conversation_too_long_for_a_message_is_rejected_unread(registry: Running) -> None:
    await registry.client.put_response("a", body=bytes(MOST_BYTES - 10))
    await registry.client.put_response("b", body=bytes(11), previous_id="a")
    with pytest.raises(InvalidRequest, match="longer than 48 MiB"):
        await registry.client.conversation("b")


async def test_a_response_expires_and_is_deleted(store: ResponseStore) -> None:
    kept = Kept(store)
    await kept.put("old")
    kept.now += DAY_SECONDS
    await kept.put("young")
    kept.now += 29 * DAY_SECONDS
    with pytest.raises(ResponseNotFound):
        await kept.bodies("old")
    with pytest.raises(ResponseNotFound):
        await kept.responses.delete(Address("old", "me", "openai"))
    assert await kept.has("old", "young") == [True, True]  # no longer returned, but stored until the next sweep
    await kept.responses.sweep()
    assert await kept.has("old", "young") == [False, True]


async def test_a_continued_response_is_kept_as_long_as_its_continuation(store: ResponseStore) -> None:
    kept = Kept(store)
    await kept.put("a", body=b"1")
    kept.now += 20 * DAY_SECONDS
    await kept.put("b", "a", body=b"2")
    kept.now += 20 * DAY_SECONDS
    await kept.responses.sweep()
    assert await kept.bodies("b") == [b"1", b"2"]
    kept.now += 10 * DAY_SECONDS
    await kept.responses.sweep()
    assert await kept.has("a", "b") == [False, False]


async def test_beyond_the_limit_the_least_recently_used_are_deleted(store: ResponseStore) -> None:
    kept = Kept(store, most_bytes=100)
    await kept.put("idle", body=bytes(40))
    kept.now += DAY_SECONDS
    await kept.put("first", body=bytes(20))
    kept.now += DAY_SECONDS * 2
    await kept.put("second", "first", body=bytes(40))
    kept.now += DAY_SECONDS
    await kept.put("third", "second", body=bytes(20))
    await kept.responses.sweep()
    assert await kept.has("idle", "first", "second", "third") == [False, True, True, True]


async def test_more_than_one_batch_expires_in_one_sweep(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.responses.response_rows.DELETED_AT_ONCE", 2)
    kept = Kept(store)
    for number in range(3):
        await kept.put(f"r{number}")
    kept.now += 31 * DAY_SECONDS
    await kept.responses.sweep()
    assert await store.sizes() == []


async def test_the_registry_sweeps_after_many_writes(start: Any) -> None:
    registry: Running = await start(response_limit_mb=0.001)
    await registry.client.put_response("a", body=bytes(600))
    await registry.client.put_response("b", body=bytes(600))
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await registry.client.get_response("a")
            except ResponseNotFound:
                break
    assert len((await registry.client.get_response("b")).body) == 600


async def test_a_write_to_a_locked_database_is_rejected_and_later_writes_work(home: Path, registry: Running) -> None:
    with closing(sqlite3.connect(home / "registry.db")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(AtelierError, match="database"):
            await registry.client.put_response("a")
    await registry.client.put_response("a")
    assert (await registry.client.get_response("a")).id == "a"
