"""OpenAI's tools of type mcp: a server, and which of its tools the model may call. Pure."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from atelier.errors import InvalidRequest, UnsupportedField
from gateway.core.mcp_server_config import APPROVALS, NEVER, Approval
from gateway.dialects.body import Body
from gateway.tools.loop.server_selection import RequestedServer

LONGEST_URL = 2048
MOST_NAMED = 512
MOST_HEADERS = 32

Label = Annotated[str, Field(pattern="^[a-zA-Z0-9_-][a-zA-Z0-9_. -]{0,63}$")]  # as OpenAI has it, and mcp.json
HeaderValue = Annotated[str, Field(max_length=8192, pattern=r"^[\x20-\x7e\t]*$")]
HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$")]
ServerHeaders = Annotated[dict[HeaderName, HeaderValue], Field(max_length=MOST_HEADERS)]
ServerUrl = Annotated[str, Field(min_length=1, max_length=LONGEST_URL)]
ToolNames = Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=MOST_NAMED)]


class ToolFilter(Body):
    tool_names: ToolNames | None = None
    read_only: bool | None = Field(None, description="Only tools that their server describes as read-only.")


def _list_or_filter(value: object) -> str:
    return "(list)" if isinstance(value, list) else "(filter)"


class ApprovalFilter(Body):
    always: ToolFilter | None = None
    never: ToolFilter | None = None


def _word_or_filter(value: object) -> str:
    return "(word)" if isinstance(value, str) else "(filter)"


class MCPTool(Body):
    """A server. Without `server_url` it is the operator's server of this label."""

    type: Literal["mcp"]
    server_label: Label
    server_url: ServerUrl | None = None
    server_description: str | None = Field(None, description="Ignored: the server describes its tools.")
    headers: ServerHeaders | None = Field(None, description="Sent to the server with each request.")
    authorization: HeaderValue | None = Field(None, description="A token, sent as `Authorization: Bearer`.")
    allowed_tools: (
        Annotated[
            Annotated[ToolNames, Tag("(list)")] | Annotated[ToolFilter, Tag("(filter)")],
            Discriminator(_list_or_filter),
        ]
        | None
    ) = None
    require_approval: (
        Annotated[
            Annotated[Literal["always", "never"], Tag("(word)")] | Annotated[ApprovalFilter, Tag("(filter)")],
            Discriminator(_word_or_filter),
        ]
        | None
    ) = Field(None, description="Which calls wait for the client's approval. In chat completions: never.")
    connector_id: object = Field(None, description="Not supported.")


class NamedMCPTool(Body):
    """A server's tool that must be called."""

    type: Literal["mcp"]
    server_label: Label
    name: Annotated[str, Field(max_length=256)]


def is_mcp(value: object) -> bool:
    return isinstance(value, dict) and value.get("type") == "mcp"


def server_entries(tools: Sequence[object] | None) -> list[tuple[str, MCPTool]]:
    """The servers among a request's tools, each with its path in the request."""
    return [(f"tools[{number}]", entry) for number, entry in enumerate(tools or []) if isinstance(entry, MCPTool)]


def requested_server(entry: MCPTool, path: str, *, usual: Approval = NEVER) -> RequestedServer:
    """`usual`: the approval if the entry specifies none. `path`: of the entry. Raises InvalidRequest."""
    if entry.connector_id is not None:
        param = f"{path}.connector_id"
        raise UnsupportedField(f"{param}: connectors are not supported; send a server_url.", param=param)
    names, read_only = _filtered(entry.allowed_tools)
    return RequestedServer(
        label=entry.server_label,
        path=path,
        url=entry.server_url,
        headers=_headers(entry, path),
        allowed=names,
        read_only=read_only,
        approval=_approval(entry, path, usual),
    )


def _headers(entry: MCPTool, path: str) -> dict[str, str]:
    headers = dict(entry.headers or {})
    if entry.authorization is None:
        return headers
    if any(name.lower() == "authorization" for name in headers):
        param = f"{path}.authorization"
        raise InvalidRequest(f"{param}: cannot be combined with an Authorization header; omit one", param=param)
    return {**headers, "Authorization": f"Bearer {entry.authorization}"}


def _filtered(allowed: list[str] | ToolFilter | None) -> tuple[frozenset[str] | None, bool]:
    """The allowed names, None for all; and whether only read-only tools are allowed."""
    if isinstance(allowed, ToolFilter):
        names = None if allowed.tool_names is None else frozenset(allowed.tool_names)
        return names, bool(allowed.read_only)
    return None if allowed is None else frozenset(allowed), False


def _approval(entry: MCPTool, path: str, usual: Approval) -> Approval:
    match entry.require_approval:
        case None:
            return usual
        case str(word):
            return APPROVALS[word]
        case ApprovalFilter(always=always, never=never):
            for name, each in (("always", always), ("never", never)):
                _reject_hints(each, f"{path}.require_approval.{name}.read_only")
            if always is None and never is None:
                return usual
            if always is None:
                return Approval(None, _names(never))
            return Approval(_names(always) - _names(never))


def _reject_hints(filter: ToolFilter | None, param: str) -> None:
    """Approval must not depend on a server's own claim that a tool is read-only."""
    if filter is not None and filter.read_only is not None:
        raise UnsupportedField(f"{param}: not supported; list tool_names instead.", param=param)


def _names(given: ToolFilter | None) -> frozenset[str]:
    return frozenset((given.tool_names if given else None) or ())
