"""A download, as the rest of the registry and every watcher sees it."""

from dataclasses import dataclass
from enum import Enum

from atelier.errors import AtelierError
from registry.hub.hub_listing import RepoFile

HUB, PYPI = "hub", "pypi"


class DownloadState(Enum):
    """Named as on the wire.

    QUEUED -> DOWNLOADING -> VERIFYING -> COMPLETED
       ^           |             '-> FAILED: a digest does not match, or the file is not a model
       |           |-> FAILED: no such file, no access, disk full, or the hub unreachable for too long
       |           '-> PAUSED
       '--- `resume` of a PAUSED or FAILED download
    """

    QUEUED = "waiting for other downloads"
    DOWNLOADING = "receiving bytes; or, with an error, waiting to retry"
    VERIFYING = "complete; digests are being checked"
    COMPLETED = "its model is available"
    PAUSED = "stopped until it is resumed"
    FAILED = "ended with an error; the bytes received are kept"


AT_WORK = frozenset({DownloadState.QUEUED, DownloadState.DOWNLOADING, DownloadState.VERIFYING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One download at one moment."""

    id: str
    reference: str  # as requested
    source: str = HUB
    repo: str  # user/repo, or the package
    commit: str  # or the package's version; empty while unknown
    licence: str
    files: tuple[RepoFile, ...]  # the model's parts in order, then the projector; none for a package
    started_at: float  # seconds since the epoch
    state: DownloadState = DownloadState.QUEUED
    expected_bytes: int = 0  # of a package's wheels, estimated until all are here; 0: unknown
    done_bytes: int = 0
    bytes_per_second: float = 0.0
    error: AtelierError | None = None
    model_key: str = ""  # once it is COMPLETED
    finished_at: float = 0.0

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files) or self.expected_bytes

    @property
    def digests(self) -> dict[str, str]:
        """By file name."""
        return {file.name: file.digest for file in self.files}

    def is_of(self, repo: str, commit: str, files: tuple[RepoFile, ...]) -> bool:
        return (self.repo, self.commit, self.files) == (repo, commit, files)
