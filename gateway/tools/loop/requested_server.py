"""What a request says of an MCP server that it wants used, whatever its dialect; and what becomes of it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atelier.errors import Forbidden, InvalidRequest
from gateway.core.mcp_server import NEVER, Approval, Endpoint, Server, Servers, Use

MOST_SERVERS = 16  # of one request
LONGEST_TOLD = 64  # characters of a label in an error
# What says where a request ends, and whom it is for: the connection's to say, which goes to an address that was judged.
CONNECTIONS_OWN = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)

NOT_ALLOWED = (
    "{path}: requests may not name MCP servers of their own here; the operator can allow it (ATELIER_MCP_REQUESTS), "
    "or add the server to mcp.json (atelier mcp add)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """`url`: of a server of the request's own; None: one of the operator's. `path`: the server's place in the request.

    `label_name`: what the dialect calls the field of the label.
    """

    label: str
    path: str
    url: str | None = None
    headers: Mapping[str, str] | None = None
    allowed: frozenset[str] | None = None
    read_only: bool = False
    approval: Approval = NEVER
    label_name: str = "server_label"


def find_uses(wishes: Sequence[Wish], servers: Servers, owner: str, *, own_servers: bool) -> list[Use]:
    """`servers`: the operator's. `own_servers`: whether requests may name others. InvalidRequest, Forbidden."""
    if len(wishes) > MOST_SERVERS:
        path = wishes[MOST_SERVERS].path
        raise InvalidRequest(f"{path}: a request may use {MOST_SERVERS} MCP servers at most", param=path)
    labels: set[str] = set()
    for wish in wishes:
        if wish.label in labels:
            raise InvalidRequest(f'{wish.path}: there is a server "{told_label(wish.label)}" already', param=wish.path)
        labels.add(wish.label)
    return [_use(wish, servers, owner, own_servers=own_servers) for wish in wishes]


def _use(wish: Wish, servers: Servers, owner: str, *, own_servers: bool) -> Use:
    if wish.url is None:
        return _narrowed(_known(wish, servers), wish)
    if not own_servers:
        raise Forbidden(NOT_ALLOWED.format(path=wish.path), param=wish.path)
    _refuse_connections_own(wish)
    reach = Endpoint(wish.url, tuple(sorted((wish.headers or {}).items())), public_only=True)
    return _narrowed(Use(Server(wish.label, reach, owner)), wish)


def _refuse_connections_own(wish: Wish) -> None:
    for name in wish.headers or {}:
        if name.lower() in CONNECTIONS_OWN:
            param = f"{wish.path}.headers"
            raise InvalidRequest(f"{param}: {name} is not a request's to set", param=param)


def _known(wish: Wish, servers: Servers) -> Use:
    if wish.headers:
        raise InvalidRequest(f"{wish.path}.headers: only go with a server_url", param=f"{wish.path}.headers")
    if (use := servers.get(wish.label)) is not None:
        return use
    param = f"{wish.path}.{wish.label_name}" if wish.label_name else wish.path
    raise InvalidRequest(f'{param}: no MCP server "{told_label(wish.label)}" is set up here (mcp.json)', param=param)


def _narrowed(use: Use, wish: Wish) -> Use:
    """A request can have less than the operator gives, never more."""
    allowed = wish.allowed
    if use.allowed is not None:
        allowed = use.allowed if allowed is None else use.allowed & allowed
    return Use(use.server, allowed, use.approval | wish.approval, use.read_only or wish.read_only)


def told_label(label: str) -> str:
    return label[:LONGEST_TOLD]
