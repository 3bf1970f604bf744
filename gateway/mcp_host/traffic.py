"""What comes from a server, on its way to the SDK: counted, slowed down, and its tools looked at."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self

from mcp.client import Transport
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCResponse

Item = SessionMessage | Exception
Streams = tuple[Any, Any]
"""The SDK's: what is read of the server, what is written to it."""

Connect = Callable[[], AbstractAsyncContextManager[Streams]]
Sift = Callable[[dict[str, Any]], Awaitable[None]]
"""Puts the result of tools/list in order, in place."""


class Pace:
    """So many a second; who is faster waits, and so does whoever writes to us, as nobody reads meanwhile."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._since = 0.0

    async def step(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._since >= 1:
            self._since, self._count = now, 0
        self._count += 1
        if self._count > self._most:
            await asyncio.sleep(self._since + 1 - now)


class Traffic:
    """One connection's. `heard`: messages so far; `ended`: set when there will be none any more."""

    def __init__(self, pace: Pace, sift: Sift, on_end: Callable[[], None]) -> None:
        self.heard = 0
        self._pace = pace
        self._sift = sift
        self._on_end = on_end

    @asynccontextmanager
    async def over(self, connect: Connect) -> AsyncIterator[Streams]:
        """The connection's streams, watched. A transport as the SDK has them."""
        async with connect() as (read, write):
            yield _Reader(read, self), write

    def transport(self, connect: Connect) -> Transport:
        return self.over(connect)

    async def pass_on(self, item: Item) -> Item:
        self.heard += 1
        await self._pace.step()
        # The SDK refuses a list of tools whole when one of them is not as it should be, checks results by schemas
        # of the server's making for as long as that takes, and asks for the list again where it knows no schema.
        # So lists are put in order before it sees them.
        if isinstance(item, SessionMessage) and isinstance(item.message, JSONRPCResponse):
            result = item.message.result
            if isinstance(result.get("tools"), list):
                await self._sift(result)
        return item

    def end(self) -> None:
        self._on_end()


class _Reader:
    """A stream that the SDK reads."""

    def __init__(self, inner: Any, traffic: Traffic) -> None:
        self._inner = inner
        self._traffic = traffic

    @property
    def last_context(self) -> Any:
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> Item:
        return await self._traffic.pass_on(await self._inner.receive())

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        try:
            item = await self._inner.__anext__()
        except BaseException:
            self._traffic.end()
            raise
        return await self._traffic.pass_on(item)

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)
