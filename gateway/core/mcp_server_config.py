"""MCP servers: how each is reached, and which of its tools a request may use. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from atelier.json_types import Json


@dataclass(frozen=True, slots=True)
class Command:
    """A program that speaks MCP over standard input and output. Only the operator's file may name one."""

    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()  # in addition to the few variables that all inherit
    cwd: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server reached over streamable HTTP. `public_only`: a request named it, not the operator."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    public_only: bool = False


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Equal ones share a connection, so `owner` is part of it: whose request named it; "": the operator, for all."""

    label: str
    reach: Command | Endpoint
    owner: str = ""
    call_seconds: float = 60.0  # that one tool call may take
    sampling_model: str | None = None  # that answers the server's sampling requests; None: they are rejected
    elicitation: bool = False  # whether it may ask the user questions


@dataclass(frozen=True, slots=True)
class Approval:
    """Which tools a person has to approve before they run."""

    always: frozenset[str] | None = frozenset()  # None: all but those of `never`
    never: frozenset[str] = frozenset()

    def wanted(self, tool: str) -> bool:
        return tool not in self.never if self.always is None else tool in self.always

    def __or__(self, other: "Approval") -> "Approval":
        """Needed where either needs it."""
        mine, theirs = self.always, other.always
        if mine is not None and theirs is not None:
            return Approval(mine | theirs)
        if mine is None and theirs is None:
            return Approval(None, self.never & other.never)
        return Approval(None, (self.never | other.never) - (mine or theirs or frozenset()))


NEVER = Approval()
ALWAYS = Approval(None)
APPROVALS = {"never": NEVER, "always": ALWAYS}  # as mcp.json and requests call them


@dataclass(frozen=True, slots=True)
class Use:
    """What a request may use of a server. `allowed`: names of tools; None: all. `read_only`: only tools that say so."""

    server: ServerConfig
    allowed: frozenset[str] | None = None
    approval: Approval = NEVER
    read_only: bool = False

    def allows(self, tool: str, annotations: Json) -> bool:
        if self.read_only and annotations.get("readOnlyHint") is not True:
            return False
        return self.allowed is None or tool in self.allowed


Servers = Mapping[str, Use]
"""The operator's, by label."""
