"""The servers' tools of one request, as the model is shown them. Pure."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from atelier.submission import Tool
from gateway.core.hosted_tool import HostedTool, ServerTool
from gateway.core.mcp_server import Use

LONGEST_NAME = 64  # characters, as OpenAI's functions have it
UNUSUAL = re.compile(r"[^a-zA-Z0-9_-]")


@dataclass(frozen=True, slots=True)
class Listing:
    """What a server offers, as far as the request allows it."""

    use: Use
    tools: Sequence[ServerTool]


@dataclass(frozen=True, slots=True)
class Toolset:
    """By the names that the model is shown."""

    tools: Mapping[str, HostedTool]
    listings: Sequence[Listing] = ()
    _by_server: Mapping[tuple[str, str], HostedTool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_server = {(each.label, each.name): each for each in self.tools.values()}
        object.__setattr__(self, "_by_server", by_server)

    def definitions(self) -> list[Tool]:
        """As a call carries them."""
        return [Tool(each.shown, each.tool.description, each.tool.parameters) for each in self.tools.values()]

    def find(self, label: str, name: str) -> HostedTool | None:
        """The tool that its server calls so."""
        return self._by_server.get((label, name))

    def of_server(self, label: str) -> list[HostedTool]:
        return [each for each in self.tools.values() if each.label == label]


def make_toolset(listings: Sequence[Listing], taken: Collection[str] = ()) -> Toolset:
    """A tool keeps its name where no other has it; otherwise its server's label comes before it.

    `taken`: names of the functions that the client runs itself.
    """
    offered = [(listing.use, tool) for listing in listings for tool in listing.tools]
    names = [_usual(tool.name) for _, tool in offered]
    counts, free = Counter([*names, *taken]), _FreeNames(taken)
    shown: dict[str, HostedTool] = {}
    for (use, tool), name in zip(offered, names, strict=True):
        word = free.take(name if counts[name] == 1 else _usual(f"{use.server.label}_{tool.name}"))
        shown[word] = HostedTool(word, use, tool)
    return Toolset(shown, listings)


def _usual(name: str) -> str:
    """In the characters that models' call formats bear; one that is cut keeps a sign of the rest."""
    word = UNUSUAL.sub("_", name)
    if len(word) <= LONGEST_NAME:
        return word
    return word[: LONGEST_NAME - 9] + "_" + hashlib.sha256(name.encode()).hexdigest()[:8]


class _FreeNames:
    """Each name once, in time that grows with their number alone: thousands may be alike."""

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = set(taken)
        self._numbers: Counter[str] = Counter()  # that have been given, by what comes before them

    def take(self, name: str) -> str:
        """The name, or one like it."""
        begin, word = name[: LONGEST_NAME - 6], name
        while word in self._taken:
            self._numbers[begin] += 1
            word = f"{begin}_{self._numbers[begin] + 1}"
        self._taken.add(word)
        return word
