"""An MCP server as the host knows it: how it is reached, and what a request may have of it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Command:
    """A program that speaks MCP over its standard input and output. Only the operator's file names any."""

    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()  # beside the few variables that every one inherits
    cwd: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One that is reached over streamable HTTP. `public_only`: it was named by a request, not by the operator."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    public_only: bool = False


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What one connection is to. Equal ones share it, so `owner` is whose key named it in a request; "" for all."""

    label: str
    reach: Command | Endpoint
    owner: str = ""
    call_seconds: float = 60.0  # that one call of a tool may take
    sampling_model: str | None = None  # that answers what the server asks a model; None: it is refused
    elicitation: bool = False  # whether it may ask the user


@dataclass(frozen=True, slots=True)
class Approval:
    """Which tools a person has to agree to before they run."""

    always: frozenset[str] | None = frozenset()  # None: all but those of `never`
    never: frozenset[str] = frozenset()

    def wanted(self, tool: str) -> bool:
        return tool not in self.never if self.always is None else tool in self.always

    def __or__(self, other: "Approval") -> "Approval":
        """Wanted by either."""
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
    """What a request wants of a server. `allowed`: names of its tools; None: all. `read_only`: those that say so."""

    server: ServerConfig
    allowed: frozenset[str] | None = None
    approval: Approval = NEVER
    read_only: bool = False

    def allows(self, tool: str, annotations: Mapping[str, Any]) -> bool:
        if self.read_only and annotations.get("readOnlyHint") is not True:
            return False
        return self.allowed is None or tool in self.allowed


Servers = Mapping[str, Use]
"""The operator's, by label."""
