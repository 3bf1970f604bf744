"""What the handler of a call or channel receives, and what a namespace offers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from pydantic import BaseModel

from atelier.json_types import Json
from gateway.core.call import Account, Origin
from gateway.dialects.lmstudio_sdk.sdk_errors import RequestedNames, parsed

HEARTBEAT_SECONDS = 15.0  # clients give up after 60 s without a message on a channel

Domain = Literal["llm", "embedding"]
P = TypeVar("P", bound=BaseModel)
C = TypeVar("C", bound="CallContext")
R = TypeVar("R")


@dataclass(slots=True, kw_only=True)
class CallContext:
    """One call. `domain`: the kind of model that its namespace serves."""

    account: Account
    origin: Origin
    domain: Domain
    requested: RequestedNames = field(default_factory=RequestedNames)


@dataclass(slots=True, kw_only=True)
class Channel(CallContext):
    """One channel, owned by its task. The socket's reader calls `cancel` when the client cancels."""

    send: Callable[[object], Awaitable[None]]
    task: asyncio.Task[None] | None = None
    cancelled: bool = False
    finished: bool = False  # the last message is being sent: too late to cancel

    def cancel(self) -> None:
        if not self.cancelled and not self.finished and self.task is not None:
            self.cancelled = True
            self.task.cancel()

    def absorb_cancel(self) -> bool:
        """Whether the client cancelled; if so, the task continues. To be called in `except CancelledError`."""
        if not self.cancelled or self.finished or self.task is None or self.task.uncancel() > 0:
            return False
        self.finished = True
        return True

    async def finish(self, message: object) -> None:
        self.finished = True
        await self.send(message)


class Heartbeat:
    """Resends a channel's current message during silence, as an async context manager."""

    def __init__(self, channel: Channel, message: object, seconds: float = HEARTBEAT_SECONDS) -> None:
        self._message = message
        self._channel = channel
        self._seconds = seconds
        self._last_sent = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    async def send(self, message: object) -> None:
        """Send a message that is not repeated."""
        self._last_sent = time.monotonic()
        await self._channel.send(message)

    async def update(self, message: object) -> None:
        """Send a message that is repeated from now on."""
        self._message = message
        await self.send(message)

    async def __aenter__(self) -> "Heartbeat":
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _beat(self) -> None:
        while True:
            quiet = time.monotonic() - self._last_sent
            if quiet >= self._seconds:
                await self.send(self._message)
                quiet = 0.0
            await asyncio.sleep(self._seconds - quiet)


CallResult = Json | list[Json] | str | None
CallHandler = Callable[[object, CallContext], Awaitable[CallResult]]
ChannelHandler = Callable[[object, Channel], Awaitable[None]]


def taking(kind: type[P], handler: Callable[[P, C], Awaitable[R]]) -> Callable[[object, C], Awaitable[R]]:
    """The handler, which then takes the parameter as received: it is validated first. Raises InvalidRequest."""

    def validated(parameter: object, context: C) -> Awaitable[R]:
        return handler(parsed(kind, parameter), context)

    return validated


@dataclass(frozen=True, slots=True)
class Namespace:
    """What one WebSocket offers: handlers by the endpoint's name.

    `one_by_one`: calls are large, so the next frame is read only after the reply to the previous one is sent.
    """

    name: str
    domain: Domain
    calls: Mapping[str, CallHandler] = field(default_factory=dict)
    channels: Mapping[str, ChannelHandler] = field(default_factory=dict)
    one_by_one: bool = False
