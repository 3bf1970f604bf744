"""A deadline that pauses while a user is asked, and requests to a server that are abandoned when it passes."""

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

Result = TypeVar("Result")


class PausableDeadline:
    """One deadline, shared by all parts of one piece of work."""

    def __init__(self, seconds: float, latest: float = math.inf) -> None:
        """`seconds`: until the deadline, pauses excluded. `latest`: seconds until it at most, pauses included."""
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._end, self._latest = now + seconds, now + latest
        self._pauses = 0
        self._paused_at = 0.0
        self._timeouts: set[asyncio.Timeout] = set()

    @property
    def has_passed(self) -> bool:
        return not self._pauses and self._loop.time() >= self._end

    @asynccontextmanager
    async def timeout(self) -> AsyncIterator[asyncio.Timeout]:
        """Raises TimeoutError at the deadline."""
        async with asyncio.timeout_at(self._when) as timeout:
            self._timeouts.add(timeout)
            try:
                yield timeout
            finally:
                self._timeouts.discard(timeout)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time spent inside moves the deadline, up to `latest`. May be nested and overlap."""
        if not self._pauses:
            self._paused_at = self._loop.time()
        self._pauses += 1
        self._reschedule()
        try:
            yield
        finally:
            self._pauses -= 1
            if not self._pauses:
                self._end = min(self._latest, self._end + self._loop.time() - self._paused_at)
            self._reschedule()

    @property
    def _when(self) -> float | None:
        when = self._latest if self._pauses else self._end
        return None if math.isinf(when) else when

    def _reschedule(self) -> None:
        for timeout in self._timeouts:
            if not timeout.expired():  # an expiring one cannot be rescheduled
                timeout.reschedule(self._when)


class PendingRequests:
    """The requests of one connection, each a task of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    async def run(self, deadline: PausableDeadline, request: Coroutine[object, object, Result]) -> Result:
        """The request's result. Raises TimeoutError at the deadline.

        Returns at once when it is cancelled or late. The request's task continues while the SDK sends the server its
        cancellation, which takes seconds if the server does not read.
        """
        task = asyncio.create_task(request)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            async with deadline.timeout():
                await asyncio.wait({task})
        finally:
            task.cancel()
        return task.result()

    def _forget(self, task: asyncio.Task[Result]) -> None:
        self._tasks.discard(task)
        retrieve_exception(task)


def retrieve_exception(task: asyncio.Task[Result]) -> None:
    """A done callback: asyncio would otherwise log the error of a task that is no longer awaited."""
    if not task.cancelled():
        task.exception()
