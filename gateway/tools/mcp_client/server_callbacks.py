"""What a server may ask in its turn: something of a model, something of the user."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from mcp.client import ClientRequestContext
from mcp_types import (
    INTERNAL_ERROR,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
)

from atelier.errors import AtelierError
from gateway.core.mcp_server import Server
from gateway.tools.mcp_client.pausable_deadline import Clock


class Sampler(Protocol):
    """Answers what a server asks a model; AtelierError."""

    async def sample(self, server: Server, params: CreateMessageRequestParams) -> CreateMessageResult: ...


class Elicit(Protocol):
    """Asks the user of one call what its server wants to know; AtelierError. Ends when the call does."""

    def __call__(self, server: Server, params: ElicitRequestParams) -> Coroutine[Any, Any, ElicitResult]: ...


class Sampling:
    """One connection's requests to a model, so many at a time. A callback of the SDK's."""

    def __init__(self, server: Server, sampler: Sampler, most: int) -> None:
        self._server = server
        self._sampler = sampler
        self._room = most

    async def __call__(
        self, context: ClientRequestContext, params: CreateMessageRequestParams
    ) -> CreateMessageResult | ErrorData:
        if not self._room:
            return ErrorData(code=INTERNAL_ERROR, message="Too many requests at a time for a model.")
        self._room -= 1
        try:
            return await self._sampler.sample(self._server, params)
        except AtelierError as error:
            return ErrorData(code=INTERNAL_ERROR, message=error.message)
        finally:
            self._room += 1


class Elicitation:
    """One connection's questions to users. A callback of the SDK's.

    A connection serves many users, so each question has to be that of the call which caused it. The call's context
    says so where the SDK hands it on: in 2026-07-28 always, before that where the question came in the stream that
    answers the call. Otherwise a call can only be told where it is the only one.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._calls: list[_Call] = []

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        call = self._asking()
        if call is None:
            return ElicitResult(action="decline")
        try:
            return await call.ask(self._server, params)
        except AtelierError as error:
            return ErrorData(code=INTERNAL_ERROR, message=error.message)

    @contextmanager
    def during(self, elicit: Elicit | None, clock: Clock) -> Iterator[None]:
        """One call, run by this very task. `elicit`: None: its user cannot be asked. `clock`: the call's."""
        call = _Call(elicit, clock)
        self._calls.append(call)
        before = _CALL.set(call)
        try:
            yield
        finally:
            _CALL.reset(before)
            self._calls.remove(call)
            call.end()

    def _asking(self) -> "_Call | None":
        call = _CALL.get()
        if call is None and len(self._calls) == 1:
            return self._calls[0]
        return call if call in self._calls else None


class _Call:
    """The questions of one call."""

    def __init__(self, elicit: Elicit | None, clock: Clock) -> None:
        self._elicit = elicit
        self._clock = clock
        self._asked: set[asyncio.Task[ElicitResult]] = set()

    async def ask(self, server: Server, params: ElicitRequestParams) -> ElicitResult:
        if self._elicit is None:
            return ElicitResult(action="decline")
        task = asyncio.create_task(self._elicit(server, params))
        self._asked.add(task)
        try:
            with self._clock.standing():
                await asyncio.wait({task})
        finally:
            task.cancel()
            self._asked.discard(task)
        return ElicitResult(action="cancel") if task.cancelled() else task.result()

    def end(self) -> None:
        """Where the server asks over the connection, the SDK does not end what waits for an answer."""
        for task in self._asked:
            task.cancel()


_CALL: ContextVar[_Call | None] = ContextVar("mcp_call", default=None)
