"""What is told of the operator's servers, and a try of one. Never their commands, addresses, headers or variables."""

import time
from collections.abc import Sequence
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response

from atelier.errors import MCPConnectionError, NotFound
from atelier.json_types import Json
from gateway.core.hosted_tool import ServerTool
from gateway.core.mcp_server import Approval, Command, Use
from gateway.dialects.native.mcp_server_reply_types import ServerList, TestedServer
from gateway.dialects.reply import json_response
from gateway.dialects.route import Route
from gateway.tools.mcp_client.connection_pool import ServerPool
from gateway.tools.mcp_client.mcp_servers_file import ServersFile


class ServerRoutes:
    tag: ClassVar[str] = "Management"

    def __init__(self, file: ServersFile, pool: ServerPool) -> None:
        self._file = file
        self._pool = pool

    def routes(self) -> Sequence[Route]:
        return (
            Route("GET /api/v1/mcp/servers", self.list, "The MCP servers whose tools models use", reply=ServerList),
            Route(
                "POST /api/v1/mcp/servers/{label}/test",
                self.test,
                "Try an MCP server, and list its tools",
                errors=(NotFound, MCPConnectionError),
                reply=TestedServer,
            ),
        )

    async def list(self, request: Request) -> Response:
        """Opens nothing: of servers that are not connected the tools are not known."""
        servers = [self._object(label, use) for label, use in self._file.servers().items()]
        return json_response({"servers": servers, "disabled": sorted(self._file.disabled), "error": self._file.error})

    async def test(self, request: Request) -> Response:
        label = request.path_params["label"]
        use = self._file.servers().get(label)
        if use is None:
            raise NotFound(f'mcp.json has no server "{label[:100]}", or it is disabled.', param="label")
        started = time.monotonic()
        tools = await self._pool.tools(use.server)
        return json_response(
            {
                "label": label,
                "protocol": self._pool.protocol(use.server),
                "seconds": round(time.monotonic() - started, 3),
                "tools": [_tool(tool, use) for tool in tools],
            }
        )

    def _object(self, label: str, use: Use) -> Json:
        tools = self._pool.known_tools(use.server)
        return {
            "label": label,
            "kind": "command" if isinstance(use.server.reach, Command) else "url",
            "state": self._pool.state(use.server),
            "protocol": self._pool.protocol(use.server) or None,
            "tools": None if tools is None else [tool.name for tool in tools if _allows(use, tool)],
            "allowed_tools": None if use.allowed is None else sorted(use.allowed),
            "require_approval": _approval(use.approval),
        }


def _tool(tool: ServerTool, use: Use) -> Json:
    return {
        "name": tool.name,
        "description": tool.description,
        "allowed": _allows(use, tool),
        "needs_approval": use.approval.wanted(tool.name),
    }


def _approval(approval: Approval) -> str | list[str]:
    """As mcp.json has it."""
    if approval.always is None:
        return "always"
    return sorted(approval.always) or "never"


def _allows(use: Use, tool: ServerTool) -> bool:
    return use.allows(tool.name, tool.annotations)
