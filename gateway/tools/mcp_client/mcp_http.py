"""A server reached over HTTP: limits on its replies, and on where its address may lead.

The SDK reads a JSON reply to its end, whatever its length, and decompresses it: so replies are bounded below it, here.
It follows redirects only to the same host and port, so the endpoint's headers stay there; the address of each redirect
is checked again all the same.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from mcp.client.streamable_http import streamable_http_client

from atelier import __version__
from gateway.core.mcp_server_config import Endpoint
from gateway.core.outbound import MOST_REDIRECTS, AddressGuard, GuardedTransport, direct_transport
from gateway.tools.mcp_client.mcp_limits import PoolLimits, parts_of
from gateway.tools.mcp_client.mcp_traffic import Streams

CONNECT_SECONDS = 10.0
WRITE_SECONDS = 30.0
DELETE_SECONDS = 2.0  # for the request that ends a session
SESSION = "mcp-session-id"
STREAM = "text/event-stream"
HEAD = 200  # bytes of a message that show its kind
EVENT_BREAKS = (b"\n\n", b"\r\n\r\n", b"\r\r")


class ReplyRejected(httpx2.StreamError):
    """The message says which limit the reply exceeds."""


class ReplyRecord:
    """What an endpoint's replies have shown. `status`: of the last reply to an MCP request, if it was an error."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.session_lost = False

    def note(self, request: httpx2.Request, reply: httpx2.Response) -> None:
        if not _carries_request(request):  # listening streams and notifications tell nothing about a call
            return
        self.status = reply.status_code if reply.status_code >= 400 else None
        # The protocol says 404. Many servers return 400 for an unknown session, as their SDK's examples do.
        rejected = reply.status_code in (httpx2.codes.NOT_FOUND, httpx2.codes.BAD_REQUEST)
        if rejected and SESSION in request.headers:
            self.session_lost = True


def _carries_request(request: httpx2.Request) -> bool:
    """Whether its message is an MCP request: the SDK writes id and method first."""
    head = request.content[:HEAD] if request.method == "POST" else b""
    return b'"id":' in head and b'"method":' in head


class Connector:
    """Opens endpoints' streams, each with an HTTP client of its own. Reads the CA certificates once, when needed."""

    def __init__(self, guard: AddressGuard) -> None:
        """`guard`: checks the addresses of endpoints that are `public_only`."""
        self._guard = guard
        self._certificates: dict[bool, ssl.SSLContext] = {}

    @asynccontextmanager
    async def streams(
        self, endpoint: Endpoint, limits: PoolLimits, replies: ReplyRecord, read_seconds: float
    ) -> AsyncIterator[Streams]:
        """`read_seconds`: longest silence within a reply."""
        async with (
            self._client(endpoint, limits, replies, read_seconds) as client,
            streamable_http_client(endpoint.url, http_client=client, max_sse_event_size=limits.message) as streams,
        ):
            yield streams

    def _client(
        self, endpoint: Endpoint, limits: PoolLimits, replies: ReplyRecord, read_seconds: float
    ) -> httpx2.AsyncClient:
        if endpoint.public_only:
            inner: httpx2.AsyncBaseTransport = GuardedTransport(
                self._guard, direct_transport(self._ssl_context(operators=False))
            )
        else:
            inner = httpx2.AsyncHTTPTransport(verify=self._ssl_context(operators=True), trust_env=False)
        return httpx2.AsyncClient(
            transport=_BoundedTransport(inner, limits, replies),
            trust_env=False,
            max_redirects=MOST_REDIRECTS,
            timeout=httpx2.Timeout(read_seconds, connect=CONNECT_SECONDS, write=WRITE_SECONDS),
            headers={
                "user-agent": f"lm-atelier/{__version__}",
                "accept-encoding": "identity",
                **dict(endpoint.headers),
            },
        )

    def _ssl_context(self, *, operators: bool) -> ssl.SSLContext:
        """`operators`: with the operator's certificates, if SSL_CERT_FILE names some."""
        if operators not in self._certificates:
            self._certificates[operators] = httpx2.create_ssl_context(trust_env=operators)
        return self._certificates[operators]


class _BoundedTransport(httpx2.AsyncBaseTransport):
    """Limits replies to the bytes and values of one message, and rejects compressed ones."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, limits: PoolLimits, replies: ReplyRecord) -> None:
        self._inner = inner
        self._limits = limits
        self._replies = replies

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "DELETE":
            request.extensions["timeout"] = httpx2.Timeout(DELETE_SECONDS).as_dict()
        reply = await self._inner.handle_async_request(request)
        self._replies.note(request, reply)
        if reply.headers.get("content-encoding", "identity").lower() != "identity":
            await reply.aclose()
            raise httpx2.DecodingError("its reply is compressed, although that was not accepted", request=request)
        streamed = reply.headers.get("content-type", "").lower().startswith(STREAM)
        if isinstance(reply.stream, httpx2.AsyncByteStream):
            reply.stream = _BoundedStream(reply.stream, self._limits, streamed=streamed)
        return reply

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    """A reply's body. `streamed`: it is an event stream, and the limits apply to each event."""

    def __init__(self, inner: httpx2.AsyncByteStream, limits: PoolLimits, *, streamed: bool) -> None:
        self._inner = inner
        self._limits = limits
        self._streamed = streamed
        self._bytes = self._parts = 0
        self._tail = b""  # of the previous piece, in which an event break may have begun

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._count(piece)
            yield piece

    def _count(self, piece: bytes) -> None:
        recent = self._tail + piece
        if self._streamed and any(mark in recent for mark in EVENT_BREAKS):
            self._bytes = self._parts = 0
        self._tail = recent[-3:]
        self._bytes += len(piece)
        self._parts += parts_of(piece)
        if self._bytes > self._limits.message + len(piece):
            raise ReplyRejected("its reply is too long")
        if self._parts > self._limits.parts:
            raise ReplyRejected("its reply has too many values")

    async def aclose(self) -> None:
        await self._inner.aclose()
