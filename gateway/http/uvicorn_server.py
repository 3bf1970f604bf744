"""uvicorn's server around the application: its listening socket, its protocols with limits on clients, its end."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from atelier.config import Config
from atelier.hosts import exposure_fault, listen_fault, unknown_host

MOST_HEAD_BYTES = 64 * 2**10  # request line and headers; trailers; framing of a body's chunks
MOST_UNREAD_BYTES = 4 * 2**20  # of a request that is already answered
LINGER_SECONDS = 1.0
MOST_FRAGMENTS = 1024  # of one WebSocket message

TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
)
BODY = (
    b'{"error":{"message":"The request\'s headers are larger than this server accepts.",'
    b'"type":"invalid_request_error","param":null,"code":"headers_too_large"}}'
)


class BoundedProtocol(HttpToolsProtocol):
    """httptools itself limits neither the headers, nor the rest of a body that is already answered.

    While no request is in progress a timer runs: uvicorn's keep-alive timer, which the first byte stops, and the one
    here, which only a whole head stops. So a client cannot hold a connection by sending a byte now and then.
    A close lets the client read the response first.
    """

    head_seconds: ClassVar[float] = 60.0  # for the rest of an already answered body, and the next head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._bare_transport = transport
        self._head_timer: asyncio.TimerHandle | None = None
        self._bare_bytes = 0  # received since the last part of a body
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
            self._bare_transport.close()  # websockets could not read its head, and does not report it

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():  # rejected here already
            super().send_400_response(msg)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # headers after the body are trailers, which no route reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        # Bytes that arrived with the head may be body, so the headers themselves are counted here.
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > MOST_HEAD_BYTES:
            self._refuse_head()
            raise ValueError("too large")  # stops the parser
        self._in_head, self._bare_bytes, self._unread_bytes = False, 0, 0
        self._stop_expecting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.parser.should_upgrade() and self._should_upgrade():
            return  # ignored, but counted as head: the other protocol begins after it
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
            self._bare_transport.close()  # an error would land in the middle of another response
        elif not self.transport.is_closing():
            self.transport.write(TOO_LARGE % (len(BODY), BODY))
            self.transport.close()

    def _discard(self, size: int) -> None:
        self._unread_bytes += size
        if self._unread_bytes > MOST_UNREAD_BYTES:
            self._bare_transport.close()

    def _close(self) -> None:
        """Close, but keep reading for a moment if the client still sends: closing with unread data resets the
        connection, which discards the response before the client has read it."""
        if self._in_head and not self._bare_bytes:
            self._bare_transport.close()
            return
        self._discarding = True
        self._bare_transport.write_eof()
        self._bare_transport.resume_reading()
        self.loop.call_later(LINGER_SECONDS, self._bare_transport.close)


class _LingeringTransport:
    """The transport as uvicorn sees it: `close` calls the protocol's."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self._close = close
        self._closing = False
        self.write = transport.write  # an attribute, since every token passes it

    def close(self) -> None:
        if not self.is_closing():
            self._closing = True
            self._close()

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BoundedSocket(WebSocketsSansIOProtocol):
    """websockets limits a message's bytes, but neither its fragments nor replies that the client does not read.

    A client that does not read is disconnected: a close would wait for it to read what is already written.
    """

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MOST_FRAGMENTS:
            super().handle_cont(event)
        else:
            self.transport.abort()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.transport.abort()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()


BACKLOG = 2048
DATE_TICK = 0  # a tick number at which uvicorn renews the Date header
DATE_SECONDS = 1.0
PING_SECONDS = 20.0  # between pings of a WebSocket's client
PONG_SECONDS = 60.0  # for its pong: a client may be busy computing


class CannotListen(Exception):
    """The message says in one line why, and what to change."""


class GatewayServer(uvicorn.Server):
    """uvicorn's server without its signal handlers: the process stops it with `stop`."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Wakes once a second. uvicorn's own wakes ten times a second to check whether to stop, even when idle."""
        while not await self.on_tick(DATE_TICK):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), DATE_SECONDS)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def create_server(app: ASGIApp, config: Config) -> GatewayServer:
    return GatewayServer(
        uvicorn.Config(
            app,
            host=config.host,
            http=BoundedProtocol,
            ws=BoundedSocket,
            ws_max_size=int(config.body_limit_mb * 2**20),
            ws_ping_interval=PING_SECONDS,
            ws_ping_timeout=PONG_SECONDS,
            ws_per_message_deflate=False,  # a small message could decompress to a large one
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,
            backlog=BACKLOG,
        )
    )


def check_exposure(config: Config) -> None:
    """Raises CannotListen when other machines could reach the server without a key."""
    fault = exposure_fault(config.host, has_key=config.api_key is not None, allow_open=config.allow_open)
    if fault:
        raise CannotListen(fault)


def listen(config: Config) -> socket.socket:
    """A listening socket. Raises CannotListen."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            config.host or None, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise CannotListen(unknown_host(config.host)) from None
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotListen(listen_fault(config.host, config.port, error)) from None
    listener.setblocking(False)
    return listener
