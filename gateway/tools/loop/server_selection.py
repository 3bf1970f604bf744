"""The MCP servers that a request selects, whatever its dialect, and what it may use of them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atelier.errors import Forbidden, InvalidRequest
from gateway.core.mcp_server_config import NEVER, Approval, Endpoint, ServerConfig, Servers, Use

MOST_SERVERS = 16  # of one request
LONGEST_QUOTED_LABEL = 64  # characters of a label in an error
# Headers that frame or route a request. Set by a request they could reach a host behind the address that was checked.
CONNECTION_HEADERS = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)

NOT_ALLOWED = (
    "{path}: requests may not name MCP servers of their own here; the operator can allow it (ATELIER_MCP_REQUESTS), "
    "or add the server to mcp.json (atelier mcp add)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedServer:
    """One entry of a request. `url`: of a server of its own; None: one of the operator's. `path`: the entry's place.

    `label_name`: the dialect's name of the label's field.
    """

    label: str
    path: str
    url: str | None = None
    headers: Mapping[str, str] | None = None
    allowed: frozenset[str] | None = None
    read_only: bool = False
    approval: Approval = NEVER
    label_name: str = "server_label"


def find_uses(requested: Sequence[RequestedServer], servers: Servers, owner: str, *, own_servers: bool) -> list[Use]:
    """`servers`: the operator's. `own_servers`: whether requests may name others. Raises InvalidRequest, Forbidden."""
    if len(requested) > MOST_SERVERS:
        path = requested[MOST_SERVERS].path
        raise InvalidRequest(f"{path}: a request may use {MOST_SERVERS} MCP servers at most", param=path)
    labels: set[str] = set()
    for each in requested:
        if each.label in labels:
            raise InvalidRequest(f'{each.path}: the label "{quoted_label(each.label)}" is used twice', param=each.path)
        labels.add(each.label)
    return [_use(each, servers, owner, own_servers=own_servers) for each in requested]


def _use(requested: RequestedServer, servers: Servers, owner: str, *, own_servers: bool) -> Use:
    if requested.url is None:
        return _restricted(_operators_use(requested, servers), requested)
    if not own_servers:
        raise Forbidden(NOT_ALLOWED.format(path=requested.path), param=requested.path)
    _check_headers(requested)
    reach = Endpoint(requested.url, tuple(sorted((requested.headers or {}).items())), public_only=True)
    return _restricted(Use(ServerConfig(requested.label, reach, owner)), requested)


def _check_headers(requested: RequestedServer) -> None:
    for name in requested.headers or {}:
        if name.lower() in CONNECTION_HEADERS:
            param = f"{requested.path}.headers"
            raise InvalidRequest(f"{param}: {name} may not be set by a request", param=param)


def _operators_use(requested: RequestedServer, servers: Servers) -> Use:
    if requested.headers:
        param = f"{requested.path}.headers"
        raise InvalidRequest(f"{param}: allowed only with a server_url", param=param)
    if (use := servers.get(requested.label)) is not None:
        return use
    param = f"{requested.path}.{requested.label_name}" if requested.label_name else requested.path
    label = quoted_label(requested.label)
    raise InvalidRequest(f'{param}: no MCP server "{label}" is configured here (mcp.json)', param=param)


def _restricted(use: Use, requested: RequestedServer) -> Use:
    """A request can restrict what the operator allows, never extend it."""
    allowed = requested.allowed
    if use.allowed is not None:
        allowed = use.allowed if allowed is None else use.allowed & allowed
    return Use(use.server, allowed, use.approval | requested.approval, use.read_only or requested.read_only)


def quoted_label(label: str) -> str:
    """A client's label, shortened for an error message."""
    return label[:LONGEST_QUOTED_LABEL]
