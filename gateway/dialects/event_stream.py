"""Responses that stream."""

from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

import orjson
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from atelier.errors import AtelierError
from gateway.core.events import Event
from gateway.core.inference import Answering
from gateway.http.disconnect import ClientGone, while_connected
from gateway.http.error_responses import error_event
from gateway.http.server_sent_events import HEADERS

_log = structlog.get_logger(__name__)


def around_text(encode: Callable[[str], bytes]) -> tuple[bytes, bytes]:
    """The bytes before and after a text in what `encode` returns, so that a stream encodes them only once."""
    placeholder = "\0"  # occurs in no name or id
    before, _, after = encode(placeholder).partition(orjson.dumps(placeholder))
    return before, after


async def send_part(send: Send, body: bytes) -> None:
    """A part of a body, not the last."""
    await send({"type": "http.response.body", "body": body, "more_body": True})


class Renderer(Protocol):
    """A dialect's bytes for one stream."""

    def opening(self) -> bytes:
        """The bytes before any text."""

    def event(self, event: Event) -> bytes: ...

    def closing(self, generation: Answering) -> bytes:
        """The bytes after the successful end of every choice."""


class StreamedResponse(Response):
    """A raw ASGI response, sent part by part until its end or until the client disconnects.

    Each send waits while the client's socket is full. An error after the headers is a part too, and the last one.
    """

    frame_headers: ClassVar[Mapping[str, str]] = HEADERS

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**self.frame_headers, **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with while_connected(receive):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": await self._stream(scope, send)})
        except ClientGone:
            scope["atelier.account"].error = "client_gone"
        finally:
            self._close()

    async def _stream(self, scope: Scope, send: Send) -> bytes:
        """Sends all but the last bytes, which it returns."""
        raise NotImplementedError

    def _close(self) -> None:
        """Release what the stream owns, however it ended."""


def failed(scope: Scope, error: AtelierError) -> bytes:
    """The last part of a stream that ends with this error."""
    scope["atelier.account"].error = error.code
    return error_event(error, scope)


class EventStream(StreamedResponse):
    """Sends a generation that has begun, one part for each step's batch, and closes it.

    After an error the stream has no end marker.
    """

    def __init__(self, generation: Answering, renderer: Renderer, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self._generation = generation
        self._renderer = renderer

    def _close(self) -> None:
        self._generation.close()

    async def _stream(self, scope: Scope, send: Send) -> bytes:
        render = self._renderer.event
        try:
            await self._open(send)
            while batch := await self._generation.next_batch():
                body = render(batch[0]) if len(batch) == 1 else b"".join(map(render, batch))
                await send_part(send, body)
            return await self._end()
        except AtelierError as error:
            return self._failed(scope, error)
        except Exception:
            _log.exception("stream_failed", request_id=self._generation.plan.origin.request_id)
            return self._failed(scope, AtelierError())

    async def _open(self, send: Send) -> None:
        """Send the part before the first event."""
        await send_part(send, self._renderer.opening())

    async def _end(self) -> bytes:
        """The bytes after the last event."""
        return self._renderer.closing(self._generation)

    def _failed(self, scope: Scope, error: AtelierError) -> bytes:
        return failed(scope, error)
