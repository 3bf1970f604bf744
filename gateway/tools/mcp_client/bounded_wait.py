"""Waiting for a server no longer than so long."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from gateway.tools.mcp_client.pausable_deadline import Clock

Found = TypeVar("Found")


class Patience:
    """One connection's requests. Each runs as a task of its own."""

    def __init__(self) -> None:
        self._requests: set[asyncio.Task[Any]] = set()

    async def within(self, clock: Clock, work: Coroutine[Any, Any, Found]) -> Found:
        """What comes of it; TimeoutError. Who waits no longer goes at once, while the SDK tells the server of it.

        That takes seconds where the server does not read.
        """
        task = asyncio.create_task(work)
        self._requests.add(task)
        task.add_done_callback(self._forget)
        try:
            async with clock.limit():
                await asyncio.wait({task})
        finally:
            task.cancel()
        return task.result()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._requests.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be waiting for it any more
