"""The operator's MCP servers: their state, a test of one, and users' answers to their questions.

Never returns servers' commands, addresses, headers or environment variables.
"""

import time
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from atelier.errors import MCPConnectionError, NotFound, PayloadTooLarge
from gateway.core.hosted_tool import ServerTool
from gateway.core.mcp_server_config import Approval, Command, Use
from gateway.core.question import ElicitationAnswer
from gateway.dialects.body import read_body
from gateway.dialects.native.native_requests import ElicitationBody
from gateway.dialects.reply import json_response, owner_of
from gateway.dialects.route import Route
from gateway.tools.elicitation import OpenQuestions
from gateway.tools.mcp_client.connection_pool import ConnectionState, ServerPool
from gateway.tools.mcp_client.mcp_servers_file import ServersFile


class ServerObject(TypedDict):
    label: str
    kind: Literal["command", "url"]
    state: ConnectionState
    protocol: Annotated[str | None, Field(description="The connection's MCP version; null if it is not open.")]
    tools: Annotated[list[str] | None, Field(description="Those that models may use; null if they are not known yet.")]
    allowed_tools: Annotated[list[str] | None, Field(description="From mcp.json; null: all.")]
    require_approval: Literal["always", "never"] | list[str]


class ServerList(TypedDict):
    servers: list[ServerObject]
    disabled: Annotated[list[str], Field(description="Labels of the servers that are disabled in mcp.json.")]
    error: Annotated[
        str | None, Field(description="What is wrong with mcp.json; until it is fixed its last valid content applies.")
    ]


class TestedTool(TypedDict):
    name: str
    description: str
    allowed: bool
    needs_approval: bool


class TestedServer(TypedDict):
    label: str
    protocol: str
    seconds: Annotated[float, Field(description="Including connecting, if it was not connected.")]
    tools: list[TestedTool]


class AnsweredElicitation(TypedDict):
    id: str
    action: Literal["accept", "decline", "cancel"]


class MCPServerRoutes:
    tag: ClassVar[str] = "Management"

    def __init__(self, file: ServersFile, pool: ServerPool, questions: OpenQuestions) -> None:
        self._file = file
        self._pool = pool
        self._questions = questions

    def routes(self) -> Sequence[Route]:
        return (
            Route("GET /api/v1/mcp/servers", self.list, "List the operator's MCP servers", reply=ServerList),
            Route(
                "POST /api/v1/mcp/servers/{label}/test",
                self.test,
                "Test an MCP server, and list its tools",
                errors=(NotFound, MCPConnectionError),
                reply=TestedServer,
            ),
            Route(
                "POST /api/v1/mcp/elicitations/{id}",
                self.answer,
                "Answer an MCP server's question to the user",
                body=ElicitationBody,
                request={"action": "accept", "content": {"name": "Ada"}},
                errors=(NotFound, PayloadTooLarge),
                reply=AnsweredElicitation,
            ),
        )

    async def list(self, request: Request) -> Response:
        """Opens no connections."""
        servers = [self._object(label, use) for label, use in self._file.servers().items()]
        return json_response(ServerList(servers=servers, disabled=sorted(self._file.disabled), error=self._file.error))

    async def test(self, request: Request) -> Response:
        label = request.path_params["label"]
        use = self._file.servers().get(label)
        if use is None:
            raise NotFound(f'mcp.json has no server "{label[:100]}", or it is disabled.', param="label")
        started = time.monotonic()
        tools = await self._pool.tools(use.server)
        return json_response(
            TestedServer(
                label=label,
                protocol=self._pool.protocol(use.server),
                seconds=round(time.monotonic() - started, 3),
                tools=[_tested_tool(tool, use) for tool in tools],
            )
        )

    async def answer(self, request: Request) -> Response:
        body = await read_body(request, ElicitationBody)
        id = request.path_params["id"]
        await self._questions.answer(id, owner_of(request), ElicitationAnswer(body.action, body.content))
        return json_response(AnsweredElicitation(id=id, action=body.action))

    def _object(self, label: str, use: Use) -> ServerObject:
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


def _tested_tool(tool: ServerTool, use: Use) -> TestedTool:
    return {
        "name": tool.name,
        "description": tool.description,
        "allowed": _allows(use, tool),
        "needs_approval": use.approval.wanted(tool.name),
    }


def _approval(approval: Approval) -> Literal["always", "never"] | list[str]:
    """As in mcp.json."""
    if approval.always is None:
        return "always"
    return sorted(approval.always) or "never"


def _allows(use: Use, tool: ServerTool) -> bool:
    return use.allows(tool.name, tool.annotations)
