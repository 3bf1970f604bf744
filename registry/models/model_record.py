"""A model as the rest of the registry sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.models.model_facts import ModelFacts
from registry.models.projector_files import ProjectorFile
from registry.models.split_files import parts_of


@dataclass(frozen=True, slots=True)
class Stamp:
    """Identifies the state of a model's files: their size together, and when one last changed."""

    size: int  # bytes
    changed: int  # nanoseconds since the epoch


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model was downloaded from, and the digests of its files."""

    source: str  # "hub" or "pypi"
    name: str  # user/repo, or the package
    revision: str  # commit, or version
    licence: str
    digests: Mapping[str, str]  # by file name: "sha256:..."


@dataclass(frozen=True, slots=True)
class Replicas:
    """Bounds on the number of a model's instances; scaling stays between them."""

    least: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model: its file, or the first of several, and its facts."""

    key: str
    path: Path
    source: Path  # where it was imported from; equals `path` if it was found in place
    display_name: str
    facts: ModelFacts
    stamp: Stamp
    imported_at: float  # seconds since the epoch
    provenance: Provenance | None = None  # None: not downloaded by this registry
    default_preset: str | None = None  # its settings apply where a request names no preset
    replicas: Replicas | None = None  # None: no bounds
    projector: ProjectorFile | None = None  # beside it at present; not in the database

    @property
    def publisher(self) -> str:
        return self.key.partition("/")[0]

    @property
    def name(self) -> str:
        return self.key.partition("/")[2]


def files_of(model: Model) -> list[Path]:
    """Its parts in order, then the files that were downloaded with them, and its projector."""
    beside = [model.path.with_name(name) for name in (model.provenance.digests if model.provenance else ())]
    projector = [model.projector.path] if model.projector else []
    return list(dict.fromkeys([*parts_of(model.path), *beside, *projector]))


def stamp_of(path: Path) -> Stamp:
    """The present stamp of a model's files. Raises OSError when one is missing."""
    infos = [part.stat() for part in parts_of(path)]
    return Stamp(sum(info.st_size for info in infos), max(info.st_mtime_ns for info in infos))
