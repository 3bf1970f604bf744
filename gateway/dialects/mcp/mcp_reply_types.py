"""What the OpenAPI tells of the MCP server's route. The messages themselves are the protocol's to describe."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from gateway.dialects.documented import Documented, Reply


class MCPMessage(BaseModel):
    """A JSON-RPC request, or without an id a notification."""

    jsonrpc: Literal["2.0"]
    id: int | str | None = None
    method: str
    params: dict[str, Any] | None = None


class MCPFault(Reply):
    code: int
    message: str
    data: Any = None


class MCPReply(Reply):
    """A JSON-RPC result or error; in a stream also the notifications before it."""

    jsonrpc: Literal["2.0"]
    id: int | str | None = None
    result: dict[str, Any] | None = None
    error: MCPFault | None = None
    method: str | None = Field(None, description="Of a notification.")
    params: dict[str, Any] | None = None


OTHER_REPLIES = {
    "202": {"description": "A notification was taken."},
    "406": {"description": "The Accept header must have application/json and text/event-stream."},
}

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
DOCUMENTED = {
    "POST /mcp": Documented(
        reply=MCPReply,
        events=MCPReply,
        request={"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}},
        example={"jsonrpc": "2.0", "id": 1, "result": {"tools": []}},
    )
}
