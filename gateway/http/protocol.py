"""uvicorn's HTTP protocol with bounds on what a client may send, and an end that lets it read the answer."""

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 64 * 2**10  # request line and headers; trailers; what frames the chunks of a body
MOST_UNREAD_BYTES = 4 * 2**20  # of a request that is answered already
LINGER_SECONDS = 1.0

TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
)
BODY = (
    b'{"error":{"message":"The request\'s headers are larger than this server accepts.",'
    b'"type":"invalid_request_error","param":null,"code":"headers_too_large"}}'
)


class BoundedProtocol(HttpToolsProtocol):
    """httptools itself bounds neither headers nor what follows an answer that needed no body.

    While nothing is being answered a timer runs: uvicorn's, which the first byte ends, or the one here,
    which only a whole head ends. So a connection cannot stay by sending a byte now and then.
    """

    head_seconds: ClassVar[float] = 60.0  # for the rest of a body that was answered already, and the next head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._bare_transport = transport
        self._head_timer: asyncio.TimerHandle | None = None
        self._bare_bytes = 0  # since the last that were part of a body
        self._in_head = True
        self._unread_bytes = 0
        self._discarding = False
        self._upgraded = False
        super().connection_made(_LingeringTransport(transport, self._close))  # type: ignore[arg-type]
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            self._discard(len(data))
            return
        self._bare_bytes += len(data)
        super().data_received(data)
        if self._bare_bytes > MOST_HEAD_BYTES:
            self._refuse_head()
        elif not self._upgraded and not self._is_answering():
            self._expect_head()

    def handle_websocket_upgrade(self) -> None:
        self._upgraded = True
        self._stop_expecting()
        super().handle_websocket_upgrade()
        if not getattr(self._bare_transport.get_protocol(), "handshake_initiated", True):
            self._bare_transport.close()  # websockets could not read its head, and says nothing of it

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():  # refused by us
            super().send_400_response(msg)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # what comes after the body are trailers, which nobody here reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        # What arrived with the head may be body, so that here the headers themselves are counted.
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > MOST_HEAD_BYTES:
            self._refuse_head()
            raise ValueError("too large")  # stops the parser
        self._in_head, self._bare_bytes, self._unread_bytes = False, 0, 0
        self._stop_expecting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.parser.should_upgrade() and self._should_upgrade():
            return  # nobody reads it, and it counts as head: the other protocol begins after it
        self._bare_bytes = 0
        if self.cycle.response_complete:
            self._discard(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head, self._bare_bytes = True, 0
        super().on_message_complete()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_expecting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_head(self) -> None:
        if self._is_answering() or not self._in_head:
            self._bare_transport.close()  # it would land in the middle of another answer
        elif not self.transport.is_closing():
            self.transport.write(TOO_LARGE % (len(BODY), BODY))
            self.transport.close()

    def _discard(self, size: int) -> None:
        self._unread_bytes += size
        if self._unread_bytes > MOST_UNREAD_BYTES:
            self._bare_transport.close()

    def _close(self) -> None:
        """Close, but read on for a moment if the client still sends: a close with unread data is a
        reset, and a reset destroys the answer before the client has read it."""
        if self._in_head and not self._bare_bytes:
            self._bare_transport.close()
            return
        self._discarding = True
        self._bare_transport.write_eof()
        self._bare_transport.resume_reading()
        self.loop.call_later(LINGER_SECONDS, self._bare_transport.close)


class _LingeringTransport:
    """The transport as uvicorn sees it: its close is the protocol's."""

    def __init__(self, transport: asyncio.Transport, close: Any) -> None:
        self._transport = transport
        self._close = close
        self._closing = False
        self.write = transport.write  # on the way of every token

    def close(self) -> None:
        if not self.is_closing():
            self._closing = True
            self._close()

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
