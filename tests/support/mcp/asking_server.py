"""An MCP server made with the SDK whose tool asks the user, in one version of the protocol or another."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Elicit, Resolve
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.mcp.http_mcp_servers import served

OLD, NEW = "2025-11-25", "2026-07-28"


class Person(BaseModel):
    name: str = Field(min_length=2)
    age: int | None = None


def who_is_it(door: str) -> Elicit[Person]:
    return Elicit(f"Who is at the {door} door?", Person)


def asking_app() -> Any:
    server = MCPServer("asking")

    @server.tool()
    def open_door(door: str, visitor: Annotated[ElicitationResult[Person], Resolve(who_is_it)]) -> str:
        """Opens a door, if the user says to whom."""
        if isinstance(visitor, AcceptedElicitation):
            return f"{visitor.data.name} is in by the {door} door"
        return f"closed: {visitor.action}"

    return server.streamable_http_app()


class Older:
    """A server that does not know the discovery of newer protocol versions."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        asked = json.loads(body)
        if asked.get("method") == "server/discover":
            await _refuse(asked["id"], send)
            return
        read = False

        async def again() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)


async def _refuse(id: object, send: Send) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found"}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def asking_server(version: str) -> AsyncIterator[str]:
    """Yields its URL."""
    app = asking_app()
    async with served(Older(app) if version == OLD else app) as url:
        yield f"{url}/mcp"
