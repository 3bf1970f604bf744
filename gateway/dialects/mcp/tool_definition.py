"""What a tool is, and what its function is given."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mcp_types import Tool as ToolEntry
from mcp_types import ToolAnnotations
from pydantic import BaseModel, TypeAdapter

from gateway.core.account import Account
from gateway.core.call import Origin
from gateway.core.inference import Inference
from gateway.core.unary import Unary
from gateway.dialects.download_follower import DownloadFollower
from gateway.dialects.route import ReplySchema
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.control import Control
from gateway.fleet.watcher import Watcher


@dataclass(frozen=True, slots=True)
class Core:
    """The parts of the gateway that the tools speak to."""

    inference: Inference
    unary: Unary
    catalogue: Catalogue
    control: Control
    watcher: Watcher
    follower: DownloadFollower


class Report(Protocol):
    """Tells the caller how far the tool is; nothing where it did not ask for that. `progress` must grow."""

    async def __call__(self, progress: float, total: float | None = None, message: str | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """One call: whose it is, and how it is told of its progress."""

    origin: Origin
    account: Account
    report: Report
    wants_progress: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What a client may ask its user's consent by."""

    reads_only: bool = True
    destroys: bool = False
    idempotent: bool = True
    open_world: bool = False  # speaks to others than this server


@dataclass(frozen=True, slots=True)
class Tool:
    """A row of the table of tools. `run` raises AtelierError, whose message the caller is told."""

    name: str
    title: str
    description: str
    input: type[BaseModel]
    output: type
    hints: Hints
    run: Callable[[Core, Caller, Any], Awaitable[BaseModel | Mapping[str, object]]]

    def entry(self) -> ToolEntry:
        """As tools/list has it."""
        hints = self.hints
        return ToolEntry(
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
