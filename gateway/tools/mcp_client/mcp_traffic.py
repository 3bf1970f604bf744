"""What comes from a server, on its way to the SDK: counted, slowed down, and its tools looked at."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

MOST_ASKED = 16  # requests of a server at a time

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


class Asked:
    """The server's own requests that we have yet to answer.

    Whoever does not read our answers could fill the memory with requests otherwise: so many are read, and no more
    before one of them is answered.
    """

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._room = asyncio.Event()
        self._room.set()

    async def begin(self, request: JSONRPCRequest) -> bool:
        """Whether to pass it on: two of one id cannot be told apart."""
        await self._room.wait()
        name = str(request.id)
        if name in self._ids:
            return False
        self._ids.add(name)
        self._look()
        return True

    def end(self, id: object) -> None:
        """Answered, or cancelled by the server."""
        self._ids.discard(str(id))
        self._look()

    def _look(self) -> None:
        if len(self._ids) < MOST_ASKED:
            self._room.set()
        else:
            self._room.clear()


class Traffic:
    """One connection's. `heard`: messages so far. `on_end`: is called when there will be none any more."""

    def __init__(self, pace: Pace, sift: Sift, on_end: Callable[[], None]) -> None:
        self.heard = 0
        self.end = on_end
        self._pace = pace
        self._sift = sift
        self._asked = Asked()

    @asynccontextmanager
    async def transport(self, connect: Connect) -> AsyncIterator[Streams]:
        """The connection's streams, watched. A transport as the SDK has them."""
        async with connect() as (read, write):
            yield _Reader(read, self), _Writer(write, self)

    async def passes(self, item: Item) -> bool:
        """Whether what came goes on to the SDK, when it may."""
        self.heard += 1
        await self._pace.step()
        match item:
            case SessionMessage(message=JSONRPCResponse(result={"tools": list()} as result)):
                # The SDK refuses a list of tools whole when one of them is not as it should be, checks results by
                # schemas of the server's making for as long as that takes, and asks for the list again where it
                # knows no schema. So lists are put in order before it sees them.
                await self._sift(result)
            case SessionMessage(message=JSONRPCRequest() as request):
                return await self._asked.begin(request)
            case SessionMessage(message=JSONRPCNotification(method="notifications/cancelled", params=params)):
                self._asked.end((params or {}).get("requestId"))
        return True

    def sent(self, item: SessionMessage) -> None:
        if isinstance(item.message, JSONRPCResponse | JSONRPCError):
            self._asked.end(item.message.id)


class _Watched:
    """A stream of the SDK's."""

    def __init__(self, inner: Any, traffic: Traffic) -> None:
        self._inner = inner
        self._traffic = traffic

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)


class _Reader(_Watched):
    @property
    def last_context(self) -> Any:
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> Item:
        item: Item = await self._inner.receive()
        while not await self._traffic.passes(item):
            item = await self._inner.receive()
        return item

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            self._traffic.end()
            raise StopAsyncIteration from None
        except BaseException:
            self._traffic.end()
            raise


class _Writer(_Watched):
    async def send(self, item: SessionMessage) -> None:
        await self._inner.send(item)
        self._traffic.sent(item)
