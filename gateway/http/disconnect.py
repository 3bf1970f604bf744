"""The client that closes its connection before it has its answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

CLIENT_CLOSED_REQUEST = 499  # nginx's number; no client reads it, but the log does


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


async def handle_client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


@asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[None]:
    """Inside, a disconnect cancels the task at its next await, whatever it waits for. Raises ClientGone.

    The body must have been read before: the listener receives what is left of the request's messages.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def listen() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    listener = asyncio.create_task(listen())
    try:
        yield
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise ClientGone() from None
        raise
    finally:
        listener.cancel()
