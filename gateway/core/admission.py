"""How much work this gateway takes on at once, and the end of taking it."""

import asyncio

from atelier.errors import Draining, Overloaded


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
        """Requests that wait for a load or for a worker's word."""
        return self._waiting

    def enter(self) -> "Ticket":
        """A place for one request; Overloaded when all are taken, Draining when the server stops."""
        if self.draining:
            raise Draining()
        if self._admitted >= self._limit:
            raise Overloaded()
        self._admitted += 1
        self._waiting += 1
        self._idle.clear()
        return Ticket(self)

    def close(self) -> None:
        """Admit nobody any more."""
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


class Ticket:
    """One admitted request's place."""

    __slots__ = ("_admission", "_begun", "_left")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._begun = False
        self._left = False

    def begin(self) -> None:
        """The request waits no more: a worker has accepted it."""
        if not self._begun:
            self._begun = True
            self._admission._begin()

    def leave(self) -> None:
        """Give the place back; a second time does nothing."""
        if not self._left:
            self._left = True
            self._admission._leave(self._begun)
