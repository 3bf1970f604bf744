"""The servers' tools of one request, as the model is shown them. Pure."""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from atelier.tools import Tool
from gateway.mcp_host.server import Use
from gateway.mcp_host.tool import HostedTool, ServerTool

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

    def definitions(self) -> list[Tool]:
        """As a call carries them."""
        return [Tool(each.shown, each.tool.description, each.tool.parameters) for each in self.tools.values()]

    def find(self, label: str, name: str) -> HostedTool | None:
        """The tool that its server calls so."""
        return next((each for each in self.tools.values() if (each.label, each.name) == (label, name)), None)

    def of_server(self, label: str) -> list[HostedTool]:
        return [each for each in self.tools.values() if each.label == label]


def make_toolset(listings: Sequence[Listing], taken: Collection[str] = ()) -> Toolset:
    """A tool keeps its name where no other has it; otherwise its server's label comes before it.

    `taken`: names of the functions that the client runs itself.
    """
    offered = [(listing.use, tool) for listing in listings for tool in listing.tools]
    names = [_usual(tool.name) for _, tool in offered]
    shown: dict[str, HostedTool] = {}
    for (use, tool), name in zip(offered, names, strict=True):
        alone = names.count(name) == 1 and name not in taken
        word = name if alone else _usual(f"{use.server.label}_{tool.name}")
        word = _unlike({*taken, *shown}, word)
        shown[word] = HostedTool(word, use, tool)
    return Toolset(shown, listings)


def _usual(name: str) -> str:
    """In the characters that models' call formats bear; one that is cut keeps a sign of the rest."""
    word = UNUSUAL.sub("_", name)
    if len(word) <= LONGEST_NAME:
        return word
    return word[: LONGEST_NAME - 9] + "_" + hashlib.sha256(name.encode()).hexdigest()[:8]


def _unlike(others: Collection[str], name: str) -> str:
    number, word = 1, name
    while word in others:
        number += 1
        word = f"{name[: LONGEST_NAME - 4]}_{number}"
    return word
