"""One HTTP exchange on a connection of its own, cheap enough not to slow the server it measures.

While an answer comes, its bytes are only kept, with the time; what they say is read afterwards. Client
and server share the machine's cores, and a client that parses every token takes its part of them.
"""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httptools

from tests.bench.trace import Piece

LOOPBACK = "127.0.0.1"


class Exchange(asyncio.Protocol):
    """A request that was sent, and the bytes received so far."""

    def __init__(self, request: bytes, on_piece: Callable[[], None] | None = None) -> None:
        self._request = request
        self._on_piece = on_piece
        self._parser = httptools.HttpResponseParser(self)
        self._now = 0.0
        self._transport: asyncio.Transport | None = None
        self.sent = time.monotonic()
        self.pieces: list[Piece] = []
        self.status = 0
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._now = time.monotonic()
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.pieces.append((self._now, body))
        if self._on_piece is not None:
            self._on_piece()

    def on_message_complete(self) -> None:
        self._end()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


async def exchange(
    port: int, path: str, body: dict[str, Any] | None = None, on_piece: Callable[[], None] | None = None
) -> Exchange:
    """Send, and return when everything was received. A POST when there is a body."""
    made = Exchange(request_bytes(path, body), on_piece)
    await asyncio.get_running_loop().create_connection(lambda: made, LOOPBACK, port)
    try:
        await made.over
    finally:
        made.close()
    return made


def request_bytes(path: str, body: dict[str, Any] | None = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
        f"Host: {LOOPBACK}",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content
