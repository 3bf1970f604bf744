"""The newest of a series of values: who reads slowly misses some, and no queue grows."""

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Written by one task, read by another."""

    def __init__(self) -> None:
        self._value: T | None = None
        self._new = asyncio.Event()

    async def take_from(self, values: AsyncIterator[T]) -> None:
        async for value in values:
            self._value = value
            self._new.set()

    async def next(self, until: float | None) -> T | None:
        """The newest value not read yet; None when none came until that time of the event loop."""
        try:
            async with asyncio.timeout_at(until):
                await self._new.wait()
        except TimeoutError:
            return None
        self._new.clear()
        return self._value
