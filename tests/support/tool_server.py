"""An MCP server of the SDK's own, with tools to call from answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

from tests.support.http_mcp_servers import served
from tests.support.pictures import red

NOTE = "n1: the kettle is blue"  # what `read_note` says of n1


@dataclass(slots=True)
class ToolServer:
    """Where it listens, and what was asked of it."""

    url: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)


def tool_app(told: ToolServer) -> Any:
    server = MCPServer("tools")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def read_note(name: str) -> str:
        """What is written in a note."""
        told.calls.append(("read_note", name))
        return f"{name}: the kettle is blue"

    @server.tool()
    def fail(reason: str) -> str:
        """Fails."""
        told.calls.append(("fail", reason))
        raise ToolError(reason)

    @server.tool()
    def picture() -> Image:
        """A small image."""
        told.calls.append(("picture", None))
        return Image(data=red(10, 8), format="png")

    @server.tool()
    async def wait() -> str:
        """Answers once it is let."""
        told.begun.set()
        try:
            await told.released.wait()
        except asyncio.CancelledError:
            told.cancelled.set()
            raise
        return "at last"

    return server.streamable_http_app()


@asynccontextmanager
async def tool_server() -> AsyncIterator[ToolServer]:
    told = ToolServer()
    async with served(tool_app(told)) as url:
        told.url = f"{url}/mcp"
        yield told
