"""Waits for a model that is being loaded, told while they last."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from gateway.core.answer import Answering
from gateway.core.routing import on_its_way
from gateway.fleet.catalogue import loaded
from gateway.fleet.snapshot import Instance, Snapshot
from gateway.fleet.watcher import Watcher

Found = TypeVar("Found")


class Loading:
    """A generation's. Owned by the request's task, which closes it: `begun`, then `progress` to its end.

    The call that waits for a load hears nothing before its end; how far the load is, the registry
    tells every gateway.
    """

    def __init__(self, generation: Answering, watcher: Watcher) -> None:
        self._generation = generation
        self._watcher = watcher
        self._finding = asyncio.create_task(generation.find())

    async def begun(self) -> str:
        """The id of the instance, as soon as one is on its way; raises what stands against the load before that."""
        while not self._finding.done():
            if (instance := self._instance()) is not None:
                return instance.id
            await self._change()
        await self._finding
        return self._generation.instance.id

    async def progress(self) -> AsyncIterator[float]:
        """How far the load is, up to 1, whenever it has come on; ends with it. Raises what it failed with."""
        told = 0.0
        while not self._finding.done():
            instance = self._instance()
            if instance is not None and instance.load_progress > told:
                told = instance.load_progress
                yield told
            else:
                await self._change()
        await self._finding
        if told < 1.0:
            yield 1.0

    def close(self) -> None:
        """Give the wait up, unless it has ended."""
        if not self._finding.cancel() and not self._finding.cancelled():
            self._finding.exception()  # nobody may be left to whom it would be raised

    def _instance(self) -> Instance | None:
        return on_its_way(self._generation.plan.target, self._watcher.snapshot)

    async def _change(self) -> None:
        await self._watcher.change(None, unless=self._finding)


async def followed(
    loading: Coroutine[Any, Any, Found],
    reached: Callable[[Snapshot], float],
    watcher: Watcher,
    report: Callable[[float], Awaitable[None]],
) -> Found:
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


def one_more(key: str, before: Snapshot) -> Callable[[Snapshot], float]:
    """How far the instance of a model is that could not answer before."""
    there = {each.id for each in loaded(before, key)}

    def reached(snapshot: Snapshot) -> float:
        new = (each for each in snapshot.instances_of(key) if each.id not in there)
        return max((each.load_progress for each in new), default=0.0)

    return reached
