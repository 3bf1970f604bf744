"""Stored responses that clients may continue: how long they are kept, and how many."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from atelier.errors import InvalidRequest, PayloadTooLarge, ResponseNotFound, Unavailable
from registry.responses.response_rows import Address, ResponseStore, StoredResponse, excess

DAY_SECONDS = 86_400.0
SWEEP_SECONDS = 60.0
MOST_RESPONSES = 100_000
MOST_BYTES = 48 * 2**20  # of one, and of a conversation: a message to a gateway has at most 64 MiB
RENEWED_SHARE = 1 / 30  # of its lifetime that must have passed before a continuation renews it
LONGEST_NAME = 255

_log = structlog.get_logger(__name__)


class Responses:
    """Owns the sweep that deletes expired and surplus responses."""

    def __init__(
        self, store: ResponseStore, *, days: float, most_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        """`days`: lifetime after a response was written or continued. `most_bytes`: of all bodies."""
        self._store = store
        self._seconds = days * DAY_SECONDS
        self._most_bytes = most_bytes
        self._clock = clock
        self._due = asyncio.Event()
        self._written_bytes = 0  # since the last sweep

    async def put(self, response: StoredResponse) -> None:
        """Store it. Raises PayloadTooLarge; InvalidRequest; AlreadyExists."""
        _check(response)
        now = self._clock()
        until = now + self._seconds
        await self._store.put(replace(response, written_at=now), until, until - self._seconds * RENEWED_SHARE)
        self._written_bytes += len(response.body)
        if self._written_bytes > self._most_bytes / 16:
            self._due.set()

    async def get(self, address: Address) -> StoredResponse:
        """Raises ResponseNotFound."""
        if response := await self._store.get(address, self._clock()):
            return response
        raise ResponseNotFound(f'There is no response "{address.id[:100]}".')

    async def conversation(self, address: Address) -> list[StoredResponse]:
        """The response and those that it continues, oldest first. Raises ResponseNotFound if one is missing."""
        try:
            responses = await self._store.conversation(address, self._clock(), MOST_BYTES)
        except OverflowError:
            raise InvalidRequest(f"The conversation is longer than {MOST_BYTES // 2**20} MiB.") from None
        if responses is None:
            await self.get(address)
            raise ResponseNotFound(f'A response that "{address.id[:100]}" continues no longer exists.')
        return responses

    async def delete(self, address: Address) -> None:
        """Raises ResponseNotFound."""
        if not await self._store.remove(address, self._clock()):
            raise ResponseNotFound(f'There is no response "{address.id[:100]}".')

    def age(self, response: StoredResponse) -> float:
        """Seconds since it was written."""
        return max(0.0, self._clock() - response.written_at)

    async def run(self) -> None:
        """Sweep every minute, and sooner after many writes, until cancelled."""
        while True:
            try:
                await self.sweep()
            except Unavailable as error:
                _log.warning("responses_not_swept", reason=error.message)
            try:
                await asyncio.wait_for(self._due.wait(), SWEEP_SECONDS)
            except TimeoutError:
                continue

    async def sweep(self) -> None:
        """Delete expired responses, then those unused for longest until the limits hold."""
        self._due.clear()
        self._written_bytes = 0
        expired = dropped = 0
        while removed := await self._store.remove_expired(self._clock()):
            expired += removed
        surplus = excess(await self._store.sizes(), MOST_RESPONSES, self._most_bytes)
        while surplus > dropped and (removed := await self._store.remove_unused(surplus - dropped)):
            dropped += removed
        if expired or dropped:
            _log.info("responses_deleted", expired=expired, too_many=dropped)


def _check(response: StoredResponse) -> None:
    address = response.address
    for name, value in (("id", address.id), ("owner", address.owner), ("kind", address.kind)):
        if len(value) > LONGEST_NAME or not (value or name == "owner"):
            raise InvalidRequest(f"{name}: must have 1 to {LONGEST_NAME} characters.", param=name)
    if len(response.previous_id or "") > LONGEST_NAME:
        raise InvalidRequest(f"previous_id: must have at most {LONGEST_NAME} characters.", param="previous_id")
    if len(response.body) > MOST_BYTES:
        raise PayloadTooLarge(f"A response has more than {MOST_BYTES // 2**20} MiB and cannot be stored.")
