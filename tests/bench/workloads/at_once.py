"""Several requests at once until all are answered."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.bench.trace import Trace


async def answered(streams: int, requests: int, ask: Callable[[int], Awaitable[Trace]]) -> list[Trace]:
    """The first failure ends them all."""
    left = iter(range(requests))

    async def one_after_another() -> list[Trace]:
        return [await ask(number) for number in left]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one_after_another()) for _ in range(streams)]
    return [trace for task in tasks for trace in task.result()]
