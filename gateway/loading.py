"""A generation's wait for its model, told while it lasts."""

import asyncio
from collections.abc import AsyncIterator

from gateway.answering import Answering
from gateway.routing import on_its_way
from gateway.snapshot import Instance
from gateway.watcher import Watcher


class Loading:
    """Owned by the request's task, which closes it: `begun`, then `progress` to its end.

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
