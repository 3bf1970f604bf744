"""An instance as the rest of the registry and its watchers see it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypedDict

from atelier.errors import AtelierError
from atelier.settings import Load
from atelier.settings.preset import Settings


class InstanceState(Enum):
    """Named as on the wire."""

    STARTING = "process launched, nothing reported yet"
    LOADING = "reading the model"
    READY = "serves requests"
    STALLED = "does not respond, or makes no progress; skipped until it does"
    RESTARTING = "the process ended; waits for the next launch"
    STOPPING = "being unloaded"
    FAILED = "given up, with the error"


TO_COME = (InstanceState.STARTING, InstanceState.LOADING, InstanceState.RESTARTING)
"""On the way to READY."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One instance at one moment."""

    id: str
    model_key: str
    load: Load  # as resolved
    load_origins: Mapping[str, str] = field(default_factory=dict)  # the origin of each of its values
    preset: str = ""  # that it was loaded with
    own: Settings = field(default_factory=dict)  # defaults for requests to it
    pin: str  # devices and cores, human-readable
    on_demand: bool  # loaded by a request, not by an operator
    host: str
    ttl: float | None = None  # seconds without work after which it is unloaded; None: never
    state: InstanceState = InstanceState.STARTING
    address: str = ""
    token: str = ""
    pid: int = 0
    load_progress: float = 0.0  # 0 to 1
    load_seconds: float = 0.0
    error: AtelierError | None = None
    active: int = 0  # sequences in work
    queued: int = 0  # calls that wait
    restarts: int = 0
    started_at: float = 0.0  # seconds since the epoch
    context_length: int = 0  # tokens
    parallel: int = 0  # sequences
    gpu_layers: int = 0
    cache_ram_bytes: int = 0  # of host memory that saved prefixes take
    cache_ram_limit_bytes: int = 0  # that they may take


class InstanceChanges(TypedDict, total=False):
    """The fields that change while it runs, apart from its state."""

    load: Load
    pin: str
    address: str
    token: str
    pid: int
    load_progress: float
    load_seconds: float
    error: AtelierError | None
    active: int
    queued: int
    restarts: int
    started_at: float
    context_length: int
    parallel: int
    gpu_layers: int
    cache_ram_bytes: int
    cache_ram_limit_bytes: int


def file_name(instance_id: str) -> str:
    """The name of an instance's files and directories: `publisher--name~2` for `publisher/name:2`."""
    return instance_id.replace("/", "--").replace(":", "~")
