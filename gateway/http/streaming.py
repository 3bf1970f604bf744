"""What streamed replies need of HTTP: the framing of events, and the end when the client disconnects.

Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

PREFIX, SUFFIX = b"data: ", b"\n\n"
DONE = b"data: [DONE]\n\n"
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would hold tokens back
}


def frame(data: bytes) -> bytes:
    return PREFIX + data + SUFFIX


def named_frame(event: str, data: bytes) -> bytes:
    return b"event: " + event.encode() + b"\n" + frame(data)


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
