"""A tool of an MCP server, and what comes of calling it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.core.mcp_server import Use


@dataclass(frozen=True, slots=True)
class ServerTool:
    """As its server lists it, once its schema has been looked at. `parameters`: JSON Schema of an object."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    annotations: Mapping[str, Any] = field(default_factory=dict)  # the server's own words: hints, not facts


@dataclass(frozen=True, slots=True)
class HostedTool:
    """One that a model may call and the gateway runs. `shown`: its name to the model, which no other of them has."""

    shown: str
    use: Use
    tool: ServerTool

    @property
    def label(self) -> str:
        return self.use.server.label

    @property
    def name(self) -> str:
        """As its server calls it."""
        return self.tool.name

    @property
    def needs_approval(self) -> bool:
        return self.use.approval.wanted(self.tool.name)


@dataclass(frozen=True, slots=True)
class ToolImage:
    """In base64, as the server gave it: its media type is not believed."""

    media_type: str
    data: str


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a call came to, within the host's limits. `is_error`: in the tool's own judgement."""

    pieces: Sequence[str | ToolImage]
    is_error: bool = False

    @property
    def text(self) -> str:
        """Without the images."""
        return "\n".join(piece for piece in self.pieces if isinstance(piece, str))

    @property
    def images(self) -> Sequence[ToolImage]:
        return [piece for piece in self.pieces if isinstance(piece, ToolImage)]
