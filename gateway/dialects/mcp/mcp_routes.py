"""The route of the MCP server: streamable HTTP, without state between requests."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, NotRequired

from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.subscriptions import ListenHandler
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import TypedDict

from atelier.json_types import Json
from gateway.dialects.body import read_bytes
from gateway.dialects.mcp.mcp_cancellation import new_session
from gateway.dialects.mcp.mcp_errors import HANDLER
from gateway.dialects.mcp.mcp_methods import MCPMethods, create_server
from gateway.dialects.mcp.mcp_resources import Resources
from gateway.dialects.mcp.mcp_subscriptions import ChangeFeed
from gateway.dialects.mcp.tool_definition import ToolServices
from gateway.dialects.route import OR_NULL, Nullable, Route

# The gateway's guards check Host and Origin before every route, by rules that the SDK's lists cannot express.
GUARDED = TransportSecuritySettings(enable_dns_rebinding_protection=False)

OTHER_REPLIES = {
    "202": {"description": "A notification was accepted."},
    "406": {"description": "The Accept header must have application/json and text/event-stream."},
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


class MCPMessage(BaseModel):
    """A JSON-RPC request, or without an id a notification."""

    jsonrpc: Literal["2.0"]
    id: int | str | None = None
    method: str
    params: Json | None = None


class MCPFault(TypedDict):
    code: int
    message: str
    data: NotRequired[Annotated[object, OR_NULL]]


class MCPReply(TypedDict):
    """A JSON-RPC result or error; in a stream also the notifications before it."""

    jsonrpc: Literal["2.0"]
    id: NotRequired[Nullable[int | str]]
    result: NotRequired[Nullable[Json]]
    error: NotRequired[Nullable[MCPFault]]
    method: NotRequired[Annotated[Nullable[str], Field(description="Of a notification.")]]
    params: NotRequired[Nullable[Json]]


class MCPRoutes:
    """Owns the task that runs the SDK's transports. `start` it, then `drain` and `close` it."""

    tag: ClassVar[str] = "MCP"

    def __init__(self, services: ToolServices, resources: Resources, body_limit: int) -> None:
        """`body_limit`: bytes, the same as the guard's."""
        self._changes = ChangeFeed(services.watcher)
        self._listen = ListenHandler(self._changes.bus)
        server = create_server(MCPMethods(services, resources), self._listen)
        self._manager = StreamableHTTPSessionManager(
            server, stateless=True, security_settings=GUARDED, max_request_body_size=body_limit
        )
        self._running: asyncio.Task[None] | None = None

    def routes(self) -> Sequence[Route]:
        return (
            Route(
                "POST /mcp",
                self.post,
                "Send a message to the MCP server",
                body=MCPMessage,
                other_replies=OTHER_REPLIES,
                request={"jsonrpc": "2.0", "id": 1, "method": "prompts/list", "params": {"_meta": META}},
                reply=MCPReply,
                events=MCPReply,
            ),
        )

    async def start(self) -> None:
        ready = asyncio.Event()
        self._running = asyncio.create_task(self._run(ready))
        await ready.wait()

    def drain(self) -> None:
        """Ends the streams of listening clients."""
        self._listen.close()

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def post(self, request: Request) -> Response:
        """Reads the body first, as the SDK would otherwise wait for a client that sends it slowly."""
        return _Exchange(self._manager, await read_bytes(request))

    async def _run(self, ready: asyncio.Event) -> None:
        """Enters and leaves the SDK's scopes in one task, as they require."""
        async with self._manager.run():
            ready.set()
            await self._changes.run()


class _Exchange(Response):
    """The SDK's response to one message of a client."""

    def __init__(self, manager: StreamableHTTPSessionManager, body: bytes) -> None:
        self.background = None
        self._manager = manager
        self._message = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body: list[Message] = [{"type": "http.request", "body": self._message, "more_body": False}]

        async def replay() -> Message:
            return body.pop() if body else await receive()

        await self._manager.handle_request(scope, replay, _with_session(send) if _may_name_session(scope) else send)
        handler = scope.get(HANDLER)
        if handler not in (None, asyncio.current_task()):  # its client left, but its usage is known only at its end
            await asyncio.wait([handler])


def _may_name_session(scope: Scope) -> bool:
    """Whether the client's protocol has sessions, which it needs in order to cancel, and it has none yet."""
    headers = Request(scope).headers
    version = headers.get(MCP_PROTOCOL_VERSION_HEADER)
    handshake = version is None or version in HANDSHAKE_PROTOCOL_VERSIONS
    return handshake and MCP_SESSION_ID_HEADER not in headers


def _with_session(send: Send) -> Send:
    async def send_with_session(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            header = (MCP_SESSION_ID_HEADER.encode(), new_session().encode())
            message["headers"] = [*message.get("headers", []), header]
        await send(message)

    return send_with_session
