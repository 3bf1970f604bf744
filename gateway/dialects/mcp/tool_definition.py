"""What defines a tool, and what its function is given."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from mcp_types import Tool, ToolAnnotations
from pydantic import BaseModel, TypeAdapter

from gateway.core.call import Account, Origin
from gateway.core.inference import InferenceCore
from gateway.core.unary import Unary
from gateway.dialects.download_follower import DownloadFollower
from gateway.dialects.route import ReplySchema
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.control import Control
from gateway.fleet.watcher import Watcher

Arguments = TypeVar("Arguments", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ToolServices:
    """The parts of the gateway that tools call."""

    inference: InferenceCore
    unary: Unary
    catalogue: Catalogue
    control: Control
    watcher: Watcher
    follower: DownloadFollower


class ReportProgress(Protocol):
    """Sends a progress notification, if the client asked for them. `progress` must increase."""

    async def __call__(self, progress: float, total: float | None = None, message: str | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """One call's client."""

    origin: Origin
    account: Account
    report: ReportProgress
    wants_progress: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """By which a client may decide whether to ask its user for consent."""

    reads_only: bool = True
    destroys: bool = False
    idempotent: bool = True
    open_world: bool = False  # contacts other hosts


@dataclass(frozen=True, slots=True)
class ToolDefinition(Generic[Arguments]):
    """A row of the table of tools. `run` raises AtelierError, whose message becomes the result."""

    name: str
    title: str
    description: str
    input: type[Arguments]
    output: type
    hints: Hints
    run: Callable[[ToolServices, Caller, Arguments], Awaitable[Mapping[str, object]]]
    text_field: str | None = None
    """The field that is the result for clients that read only text; None: the whole result, as JSON."""

    def entry(self) -> Tool:
        """As tools/list returns it."""
        hints = self.hints
        return Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=self.input.model_json_schema(),
            output_schema=TypeAdapter(self.output).json_schema(mode="serialization", schema_generator=ReplySchema),
            annotations=ToolAnnotations(
                title=self.title,
                read_only_hint=hints.reads_only,
                destructive_hint=hints.destroys,
                idempotent_hint=hints.idempotent,
                open_world_hint=hints.open_world,
            ),
        )
