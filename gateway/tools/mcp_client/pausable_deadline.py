"""A time limit that stands still while a person is asked."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class Clock:
    """Of one piece of work, all of whose parts share it."""

    def __init__(self, seconds: float, latest: float = math.inf) -> None:
        """`latest`: seconds until the end, whatever stands still."""
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._end, self._latest = now + seconds, now + latest
        self._asking = 0
        self._stopped = 0.0
        self._limits: set[asyncio.Timeout] = set()

    @property
    def is_up(self) -> bool:
        return not self._asking and self._loop.time() >= self._end

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[asyncio.Timeout]:
        """TimeoutError when the time is up."""
        async with asyncio.timeout_at(self._when) as limit:
            self._limits.add(limit)
            try:
                yield limit
            finally:
                self._limits.discard(limit)

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Inside, it stands still."""
        if not self._asking:
            self._stopped = self._loop.time()
        self._asking += 1
        self._reset()
        try:
            yield
        finally:
            self._asking -= 1
            if not self._asking:
                self._end = min(self._latest, self._end + self._loop.time() - self._stopped)
            self._reset()

    @property
    def _when(self) -> float | None:
        when = self._latest if self._asking else self._end
        return None if math.isinf(when) else when

    def _reset(self) -> None:
        for limit in self._limits:
            if not limit.expired():  # one that is on its way to its end cannot be changed
                limit.reschedule(self._when)
