"""A download as the rest of the registry, and everyone who watches it, sees it."""

from dataclasses import dataclass
from enum import Enum

from atelier.errors import AtelierError
from registry.hub.hub_listing import RepoFile

HUB, PYPI = "hub", "pypi"


class State(Enum):
    """Named as on the wire.

    QUEUED -> DOWNLOADING -> VERIFYING -> COMPLETED
       ^           |             '-> FAILED: what came is not what the hub says, or is no model
       |           |-> FAILED: it cannot be had, the disk is full, or the hub was away for too long
       |           '-> PAUSED
       '--- `resume` of what is PAUSED or FAILED
    """

    QUEUED = "waits for other downloads"
    DOWNLOADING = "its bytes come; or, with an error, waits to try again"
    VERIFYING = "all is there, and held against its digests"
    COMPLETED = "its model can be used"
    PAUSED = "waits for someone to go on with it"
    FAILED = "given up, with the error; what has come is kept"


AT_WORK = frozenset({State.QUEUED, State.DOWNLOADING, State.VERIFYING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One download at one moment."""

    id: str
    reference: str  # as it was asked for
    source: str = HUB
    repo: str  # user/repo, or the package
    commit: str  # or the package's version; empty where that is not known yet
    licence: str
    files: tuple[RepoFile, ...]  # the model's parts in their order, then the projector; of a package, none
    started_at: float  # seconds since the epoch
    state: State = State.QUEUED
    done_bytes: int = 0
    bytes_per_second: float = 0.0
    error: AtelierError | None = None
    model_key: str = ""  # once it is COMPLETED
    finished_at: float = 0.0

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def digests(self) -> dict[str, str]:
        """By the files' names."""
        return {file.name: file.digest for file in self.files}

    def is_of(self, repo: str, commit: str, files: tuple[RepoFile, ...]) -> bool:
        return (self.repo, self.commit, self.files) == (repo, commit, files)
