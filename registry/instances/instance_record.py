"""An instance as the rest of the registry, and everyone who watches it, sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from atelier.errors import AtelierError
from atelier.settings import Load
from atelier.settings.preset import Settings


class State(Enum):
    """Named as on the wire."""

    STARTING = "process launched, not answering yet"
    LOADING = "reading the model"
    READY = "answers requests"
    STALLED = "answers no more, or makes no progress; passed over until it does"
    RESTARTING = "the process died; waits before the next launch"
    STOPPING = "being unloaded"
    FAILED = "given up, with the error"


TO_COME = (State.STARTING, State.LOADING, State.RESTARTING)
"""On its way to READY."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One instance at one moment."""

    id: str
    model_key: str
    load: Load  # as resolved
    load_origins: Mapping[str, str] = field(default_factory=dict)  # where each of its values comes from
    preset: str = ""  # that it was loaded with
    own: Settings = field(default_factory=dict)  # what requests to it find set, where they are silent
    pin: str  # for people
    on_demand: bool  # loaded because a request asked for it
    host: str
    ttl: float | None = None  # seconds without work after which it is unloaded; None: it stays
    state: State = State.STARTING
    address: str = ""
    token: str = ""
    pid: int = 0
    load_progress: float = 0.0  # 0 to 1
    load_seconds: float = 0.0
    error: AtelierError | None = None
    active: int = 0
    queued: int = 0
    restarts: int = 0
    started_at: float = 0.0  # seconds since the epoch
    context_length: int = 0
    parallel: int = 0
    gpu_layers: int = 0


def file_name(instance_id: str) -> str:
    """How files and directories of an instance are called: `publisher--name~2` for `publisher/name:2`."""
    return instance_id.replace("/", "--").replace(":", "~")
