"""The MCP servers' tools of one request, under the names the model is given, and calls of them. Pure."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from atelier.json_types import Json
from atelier.submission import Tool
from gateway.core.events import HostedCallEnded
from gateway.core.hosted_tool import HostedTool, ServerTool, ToolOutput
from gateway.core.mcp_server_config import Use

LONGEST_NAME = 64  # characters, the limit of OpenAI's function names
UNUSUAL = re.compile(r"[^a-zA-Z0-9_-]")


@dataclass(frozen=True, slots=True)
class ServerListing:
    """What one server offers, as far as the request allows it."""

    use: Use
    tools: Sequence[ServerTool]


@dataclass(frozen=True, slots=True)
class HostedCall:
    """A complete call of a server's tool, which the gateway runs. `number`: of the call in its answer."""

    number: int
    id: str
    tool: HostedTool
    arguments: str

    def ended(self, output: ToolOutput | None, error: str = "") -> HostedCallEnded:
        return HostedCallEnded(0, self.number, self.id, self.tool, self.arguments, output, error)


@dataclass(frozen=True, slots=True)
class Toolset:
    """`tools`: by the name the model is given."""

    tools: Mapping[str, HostedTool]
    listings: Sequence[ServerListing] = ()
    _by_server: Mapping[tuple[str, str], HostedTool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_server = {(each.label, each.name): each for each in self.tools.values()}
        object.__setattr__(self, "_by_server", by_server)

    def definitions(self) -> list[Tool]:
        """For a call's `tools`."""
        return [Tool(each.shown, each.tool.description, each.tool.parameters) for each in self.tools.values()]

    def find(self, label: str, name: str) -> HostedTool | None:
        """`label`: the server's. `name`: the tool's at its server."""
        return self._by_server.get((label, name))

    def of_server(self, label: str) -> list[HostedTool]:
        return [each for each in self.tools.values() if each.label == label]


def make_toolset(listings: Sequence[ServerListing], taken: Collection[str] = ()) -> Toolset:
    """A tool keeps its name if no other has it; otherwise its server's label is put before it.

    `taken`: names of the client's own functions.
    """
    offered = [(listing.use, tool) for listing in listings for tool in listing.tools]
    names = [_usual(tool.name) for _, tool in offered]
    counts, unique = Counter([*names, *taken]), _UniqueNames(taken)
    tools: dict[str, HostedTool] = {}
    for (use, tool), name in zip(offered, names, strict=True):
        shown = unique.claim(name if counts[name] == 1 else _usual(f"{use.server.label}_{tool.name}"))
        tools[shown] = HostedTool(shown, use, tool)
    return Toolset(tools, listings)


def read_arguments(arguments: str) -> Json | None:
    """A call's arguments; None if they are not a JSON object."""
    try:
        parsed = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _usual(name: str) -> str:
    """In the characters that models' call formats support. A name that is cut ends in a hash of the whole."""
    usual = UNUSUAL.sub("_", name)
    if len(usual) <= LONGEST_NAME:
        return usual
    return usual[: LONGEST_NAME - 9] + "_" + hashlib.sha256(name.encode()).hexdigest()[:8]


class _UniqueNames:
    """Gives each name once, in time linear in their number: thousands may be equal."""

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = set(taken)
        self._numbers: Counter[str] = Counter()  # the last used, by prefix

    def claim(self, name: str) -> str:
        """The name, with a number if it is taken."""
        prefix, unique = name[: LONGEST_NAME - 6], name
        while unique in self._taken:
            self._numbers[prefix] += 1
            unique = f"{prefix}_{self._numbers[prefix] + 1}"
        self._taken.add(unique)
        return unique
