"""Waits for a model to be loaded, of which the caller is told how far they are."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gateway.mcp_server.tool import Report
from gateway.snapshot import Snapshot
from gateway.watcher import Watcher

T = TypeVar("T")


async def followed(
    loading: Coroutine[Any, Any, T], reached: Callable[[Snapshot], float], watcher: Watcher, report: Report
) -> T:
    """What comes of it. What `reached` finds in the snapshot, below 1, is told whenever it has grown."""
    task, told = asyncio.create_task(loading), 0.0
    try:
        while not task.done():
            await watcher.change(None, unless=task)
            if told < (now := reached(watcher.snapshot)) < 1.0:
                told = now
                await report(told)
        return await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
