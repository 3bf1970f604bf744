"""What this worker is doing: calls of every kind, whether there are any, and when there last were."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Activity:
    """Counts open calls. Used on the event loop alone."""

    def __init__(self) -> None:
        self.on_busy: Callable[[], None] = lambda: None  # called when the first call begins
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._last = time.monotonic()

    def begin(self) -> None:
        self._open += 1
        self._idle.clear()
        if self._open == 1:
            self.on_busy()

    def end(self) -> None:
        self._open -= 1
        self._last = time.monotonic()
        if self._open == 0:
            self._idle.set()

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call for as long as the block lasts."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    @property
    def open(self) -> int:
        return self._open

    @property
    def idle_seconds(self) -> float:
        """Since the last call ended; 0 while one is open."""
        return 0.0 if self._open else time.monotonic() - self._last

    async def idle(self) -> None:
        """Return when no call is open."""
        await self._idle.wait()
