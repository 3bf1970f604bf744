"""Waits for a model that is being loaded, and reports its progress meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TypeVar

from gateway.core.inference import RunningAnswer
from gateway.core.routing import on_its_way
from gateway.fleet.catalogue import loaded
from gateway.fleet.snapshot import Instance, Snapshot
from gateway.fleet.watcher import Watcher

Found = TypeVar("Found")


class LoadProgress:
    """A generation's load. Owned by the request's task, which closes it: `begun`, then `progress` to its end.

    The call that waits for the load returns only when it has ended; its progress arrives with the registry's changes.
    """

    def __init__(self, generation: RunningAnswer, watcher: Watcher) -> None:
        self._generation = generation
        self._watcher = watcher
        self._finding = asyncio.create_task(generation.find())

    async def begun(self) -> str:
        """The id of the instance, as soon as one is being loaded. Raises the error that prevents a load."""
        while not self._finding.done():
            if (instance := self._instance()) is not None:
                return instance.id
            await self._change()
        await self._finding
        return self._generation.instance.id

    async def progress(self) -> AsyncIterator[float]:
        """The share that is loaded, up to 1, whenever it has grown. Raises the error that the load failed with."""
        reported = 0.0
        while not self._finding.done():
            instance = self._instance()
            if instance is not None and instance.load_progress > reported:
                reported = instance.load_progress
                yield reported
            else:
                await self._change()
        await self._finding
        if reported < 1.0:
            yield 1.0

    def close(self) -> None:
        """Cancel the wait, unless it has ended."""
        if not self._finding.cancel() and not self._finding.cancelled():
            self._finding.exception()  # retrieved, so that asyncio does not log it: the request may have ended already

    def _instance(self) -> Instance | None:
        return on_its_way(self._generation.plan.target, self._watcher.snapshot)

    async def _change(self) -> None:
        await self._watcher.change(None, unless=self._finding)


async def followed(
    loading: Coroutine[object, object, Found],
    reached: Callable[[Snapshot], float],
    watcher: Watcher,
    report: Callable[[float], Awaitable[None]],
) -> Found:
    """The load's result. Meanwhile `report` is called with `reached(snapshot)`, below 1, whenever it has grown."""
    task, reported = asyncio.create_task(loading), 0.0
    try:
        while not task.done():
            await watcher.change(None, unless=task)
            if reported < (now := reached(watcher.snapshot)) < 1.0:
                reported = now
                await report(reported)
        return await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


def one_more(key: str, before: Snapshot) -> Callable[[Snapshot], float]:
    """The progress of the model's instance that is loaded next. `before`: a snapshot from before its load."""
    there = {each.id for each in loaded(before, key)}

    def reached(snapshot: Snapshot) -> float:
        new = (each for each in snapshot.instances_of(key) if each.id not in there)
        return max((each.load_progress for each in new), default=0.0)

    return reached
