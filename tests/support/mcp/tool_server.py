"""An MCP server made with the SDK, with tools to call from answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

from tests.support.mcp.http_mcp_servers import served
from tests.support.models.pictures import red

NOTE = "n1: the kettle is blue"  # the result of `read_note` for n1


@dataclass(slots=True)
class ToolServer:
    """The server's address, and the calls it received."""

    url: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)


def tool_app(recorded: ToolServer) -> Any:
    server = MCPServer("tools")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def read_note(name: str) -> str:
        """What is written in a note."""
        recorded.calls.append(("read_note", name))
        return f"{name}: the kettle is blue"

    @server.tool()
    def fail(reason: str) -> str:
        """Fails."""
        recorded.calls.append(("fail", reason))
        raise ToolError(reason)

    @server.tool()
    def picture() -> Image:
        """A small image."""
        recorded.calls.append(("picture", None))
        return Image(data=red(10, 8), format="png")

    @server.tool()
    async def wait() -> str:
        """Answers once it is let."""
        recorded.begun.set()
        try:
            await recorded.released.wait()
        except asyncio.CancelledError:
            recorded.cancelled.set()
            raise
        return "at last"

    return server.streamable_http_app()


@asynccontextmanager
async def tool_server() -> AsyncIterator[ToolServer]:
    recorded = ToolServer()
    async with served(tool_app(recorded)) as url:
        recorded.url = f"{url}/mcp"
        yield recorded
