"""What one call or channel is given to do its work with."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.core.account import Account
from gateway.core.call import Origin
from gateway.dialects.lmstudio_sdk.sdk_errors import Named
from gateway.dialects.lmstudio_sdk.sdk_models import Domain

PULSE_SECONDS = 15.0  # clients give up after a minute in which a channel said nothing


@dataclass(slots=True, kw_only=True)
class Work:
    """One call. `domain`: which kind of model it may be about."""

    account: Account
    origin: Origin
    domain: Domain
    named: Named = field(default_factory=Named)


@dataclass(slots=True, kw_only=True)
class Channel(Work):
    """One channel, owned by its task. `stop` is called by the socket's reader when the client cancels."""

    send: Callable[[Any], Awaitable[None]]
    stopped: bool = False
    ended: bool = False  # its last message is on its way: too late to stop
    task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        if not self.stopped and not self.ended and self.task is not None:
            self.stopped = True
            self.task.cancel()

    def was_stopped(self) -> bool:
        """Whether it was the client that cancelled, which is then dealt with; to ask in `except CancelledError`."""
        if not self.stopped or self.ended or self.task is None or self.task.uncancel() > 0:
            return False
        self.ended = True
        return True

    async def finish(self, message: Any) -> None:
        self.ended = True
        await self.send(message)


class Pulse:
    """Repeats a channel's last word while there is nothing new to say. Use it as `async with`."""

    def __init__(self, channel: Channel, message: Any, seconds: float = PULSE_SECONDS) -> None:
        self.message = message
        self._channel = channel
        self._seconds = seconds
        self._said = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    async def send(self, message: Any) -> None:
        self._said = time.monotonic()
        await self._channel.send(message)

    async def __aenter__(self) -> "Pulse":
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _beat(self) -> None:
        while True:
            quiet = time.monotonic() - self._said
            if quiet >= self._seconds:
                await self.send(self.message)
                quiet = 0.0
            await asyncio.sleep(self._seconds - quiet)


RpcHandler = Callable[[Any, Work], Awaitable[Any]]
ChannelHandler = Callable[[Any, Channel], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Namespace:
    """What one WebSocket offers, by the endpoints' names.

    `one_by_one`: calls and their answers are large, and the next is read when the one before is answered.
    """

    name: str
    domain: Domain
    calls: Mapping[str, RpcHandler] = field(default_factory=dict)
    channels: Mapping[str, ChannelHandler] = field(default_factory=dict)
    one_by_one: bool = False
