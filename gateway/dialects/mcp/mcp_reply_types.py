"""What the OpenAPI tells of the MCP server's route. The messages themselves are the protocol's to describe."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from gateway.dialects.documented import OR_NULL, Documented, Nullable


class MCPMessage(BaseModel):
    """A JSON-RPC request, or without an id a notification."""

    jsonrpc: Literal["2.0"]
    id: int | str | None = None
    method: str
    params: dict[str, Any] | None = None


class MCPFault(TypedDict):
    code: int
    message: str
    data: NotRequired[Annotated[Any, OR_NULL]]


class MCPReply(TypedDict):
    """A JSON-RPC result or error; in a stream also the notifications before it."""

    jsonrpc: Literal["2.0"]
    id: NotRequired[Nullable[int | str]]
    result: NotRequired[Nullable[dict[str, Any]]]
    error: NotRequired[Nullable[MCPFault]]
    method: NotRequired[Annotated[Nullable[str], Field(description="Of a notification.")]]
    params: NotRequired[Nullable[dict[str, Any]]]


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
