"""Messages from a server on their way to the SDK: counted, rate-limited, and lists of tools sanitized."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio
from mcp.client._transport import ReadStream, WriteStream  # the SDK has no public name for them
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from atelier.json_types import Json

MOST_SERVER_REQUESTS = 16  # open at a time

Received = SessionMessage | Exception
Streams = tuple[ReadStream[Received], WriteStream[SessionMessage]]
Stream = TypeVar("Stream", bound=ReadStream[Received] | WriteStream[SessionMessage])

Connect = Callable[[], AbstractAsyncContextManager[Streams]]
Sanitize = Callable[[Json], Awaitable[None]]
"""Rewrites the result of tools/list in place."""


class RateLimit:
    """Slows its caller down to a number of steps a second. A server that sends faster is held up by its full pipe."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._count = 0
        self._since = 0.0

    async def step(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._since >= 1:
            self._since, self._count = now, 0
        self._count += 1
        if self._count > self._per_second:
            await asyncio.sleep(self._since + 1 - now)


class ServerRequests:
    """The server's own requests that are not answered yet.

    Bounded: a server that never reads the answers could otherwise fill the memory with requests.
    """

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def begin(self, request: JSONRPCRequest) -> bool:
        """False for an id that is in use: the answers could not be distinguished. Waits while too many are open."""
        await self._has_room.wait()
        name = str(request.id)
        if name in self._ids:
            return False
        self._ids.add(name)
        self._update()
        return True

    def end(self, id: object) -> None:
        """Answered, or cancelled by the server."""
        self._ids.discard(str(id))
        self._update()

    def _update(self) -> None:
        if len(self._ids) < MOST_SERVER_REQUESTS:
            self._has_room.set()
        else:
            self._has_room.clear()


class Traffic:
    """One connection's. `received`: number of messages so far."""

    def __init__(self, rate: RateLimit, sanitize: Sanitize, on_end: Callable[[], None]) -> None:
        """`on_end`: called when no more messages can arrive."""
        self.received = 0
        self.end = on_end
        self._rate = rate
        self._sanitize = sanitize
        self._requests = ServerRequests()

    @asynccontextmanager
    async def transport(self, connect: Connect) -> AsyncIterator[Streams]:
        """The connection's streams, watched. A transport for the SDK's client."""
        async with connect() as (read, write):
            yield _WatchedReader(read, self), _WatchedWriter(write, self)

    async def admit(self, item: Received) -> bool:
        """Whether to pass a message on to the SDK. Returns when the rate limit allows it."""
        self.received += 1
        await self._rate.step()
        match item:
            case SessionMessage(message=JSONRPCResponse(result={"tools": list()} as result)):
                # The SDK rejects a list of tools whole for one malformed tool, validates results with the server's
                # schemas for as long as that takes, and lists again for a tool without a known schema. So lists
                # are sanitized before it reads them.
                await self._sanitize(result)
            case SessionMessage(message=JSONRPCRequest() as request):
                return await self._requests.begin(request)
            case SessionMessage(message=JSONRPCNotification(method="notifications/cancelled", params=params)):
                self._requests.end((params or {}).get("requestId"))
        return True

    def note_sent(self, item: SessionMessage) -> None:
        if isinstance(item.message, JSONRPCResponse | JSONRPCError):
            self._requests.end(item.message.id)


class _Watched(Generic[Stream]):
    """A stream of the SDK's."""

    def __init__(self, inner: Stream, traffic: Traffic) -> None:
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


class _WatchedReader(_Watched[ReadStream[Received]]):
    @property
    def last_context(self) -> object:
        """The SDK reads it from streams that carry their sender's context."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> Received:
        item = await self._inner.receive()
        while not await self._traffic.admit(item):
            item = await self._inner.receive()
        return item

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            self._traffic.end()
            raise StopAsyncIteration from None
        except BaseException:
            self._traffic.end()
            raise


class _WatchedWriter(_Watched[WriteStream[SessionMessage]]):
    async def send(self, item: SessionMessage, /) -> None:
        await self._inner.send(item)
        self._traffic.note_sent(item)
