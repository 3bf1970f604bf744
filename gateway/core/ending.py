"""Work that the process can end from outside, with an error of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from atelier.errors import AtelierError


class Ending:
    """Owns what is under way. For work that waits where nothing else would tell it of the end."""

    def __init__(self) -> None:
        self._running: set[asyncio.Timeout] = set()
        self._error: AtelierError | None = None

    def end_all(self, error: AtelierError) -> None:
        """All that is under way ends with this error."""
        self._error = error
        for work in self._running:
            work.reschedule(0)

    @asynccontextmanager
    async def until_ended(self) -> AsyncIterator[None]:
        """Inside, `end_all` ends the work with its error."""
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
