"""How many requests this gateway works on at once, and how they end when the server stops."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from atelier.errors import AtelierError, Draining, Overloaded


class Admission:
    """Counts the requests in work or waiting. The gateway's routes enter; the process closes it once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._admitted = 0
        self._waiting = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    @property
    def active(self) -> int:
        """Requests that a worker has accepted."""
        return self._admitted - self._waiting

    @property
    def waiting(self) -> int:
        """Requests that wait for a load, or for a worker to accept them."""
        return self._waiting

    def enter(self) -> "AdmissionSlot":
        """A slot for one request. Raises Overloaded when all are taken, Draining when the server stops."""
        if self.draining:
            raise Draining()
        if self._admitted >= self._limit:
            raise Overloaded()
        self._admitted += 1
        self._waiting += 1
        self._idle.clear()
        return AdmissionSlot(self)

    def close(self) -> None:
        """Admit no more requests."""
        self.draining = True

    async def idle(self) -> None:
        """Return when no request is in work."""
        await self._idle.wait()

    def _begin(self) -> None:
        self._waiting -= 1

    def _leave(self, begun: bool) -> None:
        self._admitted -= 1
        self._waiting -= not begun
        if not self._admitted:
            self._idle.set()


class AdmissionSlot:
    """Held by one admitted request."""

    __slots__ = ("_admission", "_begun", "_left")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._begun = False
        self._left = False

    def begin(self) -> None:
        """The request no longer waits: a worker has accepted it."""
        if not self._begun:
            self._begun = True
            self._admission._begin()

    def leave(self) -> None:
        """Free the slot; a second time does nothing."""
        if not self._left:
            self._left = True
            self._admission._leave(self._begun)


class RunningWork:
    """Owns work in progress that the server's stop must end, wherever it waits."""

    def __init__(self) -> None:
        self._running: set[asyncio.Timeout] = set()
        self._error: AtelierError | None = None

    def fail_all(self, error: AtelierError) -> None:
        """End all work in progress with this error."""
        self._error = error
        for work in self._running:
            work.reschedule(0)

    @asynccontextmanager
    async def tracked(self) -> AsyncIterator[None]:
        """Inside, `fail_all` ends the work with its error."""
        async with asyncio.timeout(None) as work:
            self._running.add(work)
            try:
                yield
            except asyncio.CancelledError:
                if self._error is not None and work.expired():
                    raise self._error from None
                raise
            finally:
                self._running.discard(work)
