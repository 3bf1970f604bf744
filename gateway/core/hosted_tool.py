"""The tools of MCP servers, and the output of a call. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from atelier.json_types import Json
from gateway.core.mcp_server_config import Use


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool as its server lists it, its schema checked. `parameters`: JSON Schema of an object."""

    name: str
    description: str = ""
    parameters: Json = field(default_factory=lambda: {"type": "object", "properties": {}})
    annotations: Json = field(default_factory=dict)  # from the server itself: hints, not facts


@dataclass(frozen=True, slots=True)
class HostedTool:
    """A tool that a model may call and the gateway runs. `shown`: its name to the model, unique in the request."""

    shown: str
    use: Use
    tool: ServerTool

    @property
    def label(self) -> str:
        return self.use.server.label

    @property
    def name(self) -> str:
        """Its name on its server."""
        return self.tool.name

    @property
    def needs_approval(self) -> bool:
        return self.use.approval.wanted(self.tool.name)


@dataclass(frozen=True, slots=True)
class ToolImage:
    """In base64, as the server sent it: its media type is not trusted."""

    media_type: str
    data: str


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """A call's result, within the host's limits. `is_error`: the tool itself reported an error."""

    pieces: Sequence[str | ToolImage]
    is_error: bool = False

    @property
    def text(self) -> str:
        """Without the images."""
        return "\n".join(piece for piece in self.pieces if isinstance(piece, str))

    @property
    def images(self) -> Sequence[ToolImage]:
        return [piece for piece in self.pieces if isinstance(piece, ToolImage)]
