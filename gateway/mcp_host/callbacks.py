"""What a server may ask in its turn: something of a model, something of the user."""

from typing import Protocol

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
from gateway.mcp_host.server import Server


class Sampler(Protocol):
    """Answers what a server asks a model; AtelierError."""

    async def sample(self, server: Server, params: CreateMessageRequestParams) -> CreateMessageResult: ...


class Elicit(Protocol):
    """Asks the user what a server wants to know; AtelierError."""

    async def __call__(self, server: Server, params: ElicitRequestParams) -> ElicitResult: ...


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
    """One connection's questions to the user. A callback of the SDK's."""

    def __init__(self, server: Server, elicit: Elicit) -> None:
        self._server = server
        self._elicit = elicit

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        try:
            return await self._elicit(self._server, params)
        except AtelierError as error:
            return ErrorData(code=INTERNAL_ERROR, message=error.message)
