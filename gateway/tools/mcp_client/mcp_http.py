"""A server that is reached over HTTP: what its replies may hold, and where its address may lead.

The SDK reads a reply that is JSON to its end, however long it is, and unpacks what is packed: so replies are bounded
here, below it. It follows redirects only where they stay with the same host and port, which keeps the endpoint's
headers there; each one is judged anew all the same.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from mcp.client.streamable_http import streamable_http_client

from atelier import __version__
from gateway.core.mcp_server import Endpoint
from gateway.core.outbound import MOST_REDIRECTS, AddressGuard, GuardedTransport, direct_transport
from gateway.tools.mcp_client.mcp_limits import PoolLimits, parts_of
from gateway.tools.mcp_client.mcp_traffic import Streams

CONNECT_SECONDS = 10.0
WRITE_SECONDS = 30.0
FAREWELL_SECONDS = 2.0  # for a server to take note that its session has ended
SESSION = "mcp-session-id"
STREAM = "text/event-stream"
HEAD = 200  # bytes of a message that tell what it is
BREAKS = (b"\n\n", b"\r\n\r\n", b"\r\r")  # between two events


class ReplyRefused(httpx2.StreamError):
    """The message says what of a reply is not taken."""


class Replies:
    """What was seen of an endpoint's replies. `status`: of the last one to a request of MCP, if it was an error."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.session_lost = False

    def note(self, request: httpx2.Request, reply: httpx2.Response) -> None:
        if not _asks(request):  # what is said of a stream to listen to, or of a notification, is of no call
            return
        self.status = reply.status_code if reply.status_code >= 400 else None
        # 404 is the protocol's. Many servers say 400 of a session that they do not know, as their SDK's examples do.
        refused = reply.status_code in (httpx2.codes.NOT_FOUND, httpx2.codes.BAD_REQUEST)
        if refused and SESSION in request.headers:
            self.session_lost = True


def _asks(request: httpx2.Request) -> bool:
    """Whether it carries a request of MCP's, whose id and method come first."""
    head = request.content[:HEAD] if request.method == "POST" else b""
    return b'"id":' in head and b'"method":' in head


class Dialler:
    """Makes the clients, each with connections of its own. Reads the certificates once, when they are needed."""

    def __init__(self, guard: AddressGuard) -> None:
        """`guard`: of the addresses that endpoints may have which are `public_only`."""
        self._guard = guard
        self._certificates: dict[bool, ssl.SSLContext] = {}

    @asynccontextmanager
    async def streams(
        self, endpoint: Endpoint, limits: PoolLimits, replies: Replies, read_seconds: float
    ) -> AsyncIterator[Streams]:
        """Of one endpoint. `read_seconds`: that it may be silent within a reply."""
        async with (
            self._client(endpoint, limits, replies, read_seconds) as client,
            streamable_http_client(endpoint.url, http_client=client, max_sse_event_size=limits.message) as streams,
        ):
            yield streams

    def _client(
        self, endpoint: Endpoint, limits: PoolLimits, replies: Replies, read_seconds: float
    ) -> httpx2.AsyncClient:
        if endpoint.public_only:
            inner: httpx2.AsyncBaseTransport = GuardedTransport(
                self._guard, direct_transport(self._verified_by(operators=False))
            )
        else:
            inner = httpx2.AsyncHTTPTransport(verify=self._verified_by(operators=True), trust_env=False)
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

    def _verified_by(self, *, operators: bool) -> ssl.SSLContext:
        """`operators`: with certificates of the operator's, where SSL_CERT_FILE names some."""
        if operators not in self._certificates:
            self._certificates[operators] = httpx2.create_ssl_context(trust_env=operators)
        return self._certificates[operators]


class _BoundedTransport(httpx2.AsyncBaseTransport):
    """Replies come in no more bytes and values than a message may have, and as they are."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, limits: PoolLimits, replies: Replies) -> None:
        self._inner = inner
        self._limits = limits
        self._replies = replies

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "DELETE":
            request.extensions["timeout"] = httpx2.Timeout(FAREWELL_SECONDS).as_dict()
        reply = await self._inner.handle_async_request(request)
        self._replies.note(request, reply)
        if reply.headers.get("content-encoding", "identity").lower() != "identity":
            await reply.aclose()
            raise httpx2.DecodingError("its reply is packed, which was not asked for", request=request)
        streamed = reply.headers.get("content-type", "").lower().startswith(STREAM)
        if isinstance(reply.stream, httpx2.AsyncByteStream):
            reply.stream = _BoundedStream(reply.stream, self._limits, streamed=streamed)
        return reply

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    """A reply's body. `streamed`: it is of events, each of which may be as large as a reply otherwise."""

    def __init__(self, inner: httpx2.AsyncByteStream, limits: PoolLimits, *, streamed: bool) -> None:
        self._inner = inner
        self._limits = limits
        self._streamed = streamed
        self._bytes = self._parts = 0
        self._before = b""  # what came last, where a break may have begun

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._count(piece)
            yield piece

    def _count(self, piece: bytes) -> None:
        near = self._before + piece
        if self._streamed and any(mark in near for mark in BREAKS):
            self._bytes = self._parts = 0
        self._before = near[-3:]
        self._bytes += len(piece)
        self._parts += parts_of(piece)
        if self._bytes > self._limits.message + len(piece):
            raise ReplyRefused("its reply is too long")
        if self._parts > self._limits.parts:
            raise ReplyRefused("its reply has too many parts")

    async def aclose(self) -> None:
        await self._inner.aclose()
