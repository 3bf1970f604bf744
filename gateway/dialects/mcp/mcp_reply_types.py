"""What the OpenAPI tells of the MCP server's route. The messages themselves are the protocol's to describe."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from gateway.dialects.route import OR_NULL, Nullable


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
