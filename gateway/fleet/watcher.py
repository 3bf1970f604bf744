"""The subscription to the registry's changes."""

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from typing import TypeVar

import grpc.aio
import structlog

from atelier.backoff import backoff_delay
from atelier.errors import Unavailable
from atelier.rpc import from_rpc_error
from gateway.fleet.registry_client import RegistryClient
from gateway.fleet.snapshot import Snapshot
from gateway.fleet.wire import apply

FIRST_DELAY = 0.1  # seconds between attempts, doubled up to the longest
LONGEST_DELAY = 2.0
ARRIVAL_SECONDS = 2.0  # for a change that the registry has made to arrive here

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Watcher:
    """Owns the snapshot. `run` keeps it up to date; while the registry is away the last one stays.

    away --Watch answers--> connected --stream ends--> away (and again after a back-off)
    """

    def __init__(self, registry: RegistryClient, on_change: Callable[[Snapshot], None] = lambda snapshot: None) -> None:
        self._registry = registry
        self._on_change = on_change
        self._changed: asyncio.Future[None] | None = None
        self._failures = 0  # in a row
        self.snapshot = Snapshot()
        self.has_snapshot = False
        self.connected = False

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        while True:
            try:
                await self._follow()
            except grpc.aio.AioRpcError as error:
                self._note_lost(from_rpc_error(error).message)
            except Exception:  # this task would end unnoticed, and the snapshot grow stale
                _log.exception("watch_failed")
                self._note_lost("a change could not be applied")
            else:
                self._note_lost("the stream ended")
            self._failures += 1
            delay = backoff_delay(self._failures, FIRST_DELAY, LONGEST_DELAY)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))

    def known(self) -> Snapshot:
        """The snapshot; Unavailable before there is one."""
        if not self.has_snapshot:
            raise Unavailable("The server is starting: it does not know the models yet.")
        return self.snapshot

    async def change(self, seconds: float | None, unless: "asyncio.Future[T] | None" = None) -> None:
        """Return at the next change, after so many seconds without one, or when `unless` is done."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        awaited: list[asyncio.Future[None] | asyncio.Future[T]] = (
            [self._changed] if unless is None else [self._changed, unless]
        )
        await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds, or after a while: what it waits for may have been undone already."""
        end = asyncio.get_running_loop().time() + ARRIVAL_SECONDS
        while not condition() and (left := end - asyncio.get_running_loop().time()) > 0:
            await self.change(left)

    async def _follow(self) -> None:
        async with aclosing(self._registry.watch()) as changes:
            async for change in changes:
                self._take(apply(self.snapshot, change))

    def _take(self, snapshot: Snapshot) -> None:
        if not self.connected:
            _log.info("registry_connected", models=len(snapshot.models), instances=len(snapshot.instances))
        self.snapshot, self.has_snapshot, self.connected = snapshot, True, True
        self._failures = 0
        self._on_change(snapshot)
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None

    def _note_lost(self, reason: str) -> None:
        if self.connected:
            _log.warning("registry_away", reason=reason)
        elif not self.has_snapshot:
            _log.info("registry_away", reason=reason)  # both start at the same time, and the registry may take longer
        self.connected = False
