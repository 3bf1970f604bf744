"""A model as the rest of the registry sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.models.model_facts import Facts
from registry.models.projector_files import Projector
from registry.models.split_files import parts_of


@dataclass(frozen=True, slots=True)
class Stamp:
    """Whether a file is still the one that was read: its parts' size, and when they last changed."""

    size: int  # bytes
    changed: int  # nanoseconds since the epoch


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model was downloaded from, and what its files must be."""

    source: str  # "hub" or "pypi"
    name: str  # user/repo, or the package
    revision: str  # commit, or version
    licence: str
    digests: Mapping[str, str]  # by file name: "sha256:..."


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many instances a model has: never fewer than the least, by itself never more than the most."""

    least: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model: a file, or the first of several, and what is known of it."""

    key: str
    path: Path
    source: Path  # where it was imported from; `path` itself when it was found in its place
    display_name: str
    facts: Facts
    stamp: Stamp
    imported_at: float  # seconds since the epoch
    provenance: Provenance | None = None  # of a file that was not downloaded by us, unknown
    default_preset: str | None = None  # name of the preset whose settings hold where nothing else is said
    replicas: Replicas | None = None  # None: as many as are loaded
    projector: Projector | None = None  # lies beside it now; not kept in the database

    @property
    def publisher(self) -> str:
        return self.key.partition("/")[0]

    @property
    def name(self) -> str:
        return self.key.partition("/")[2]


def files_of(model: Model) -> list[Path]:
    """Its parts in their order, then what came beside them: a projector, for one."""
    beside = [model.path.with_name(name) for name in (model.provenance.digests if model.provenance else ())]
    projector = [model.projector.path] if model.projector else []
    return list(dict.fromkeys([*parts_of(model.path), *beside, *projector]))


def stamp_of(path: Path) -> Stamp:
    """The stamp of a model's files as they are now; OSError when one is missing."""
    infos = [part.stat() for part in parts_of(path)]
    return Stamp(sum(info.st_size for info in infos), max(info.st_mtime_ns for info in infos))
