"""What turns images into what a model reads: a file of its own that lies beside the model."""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from atelier.errors import InvalidModelFile
from registry.models.gguf_header import Header, read_header
from registry.models.model_facts import Facts

PROJECTOR = re.compile(r"mmproj", re.IGNORECASE)
TYPES = ("F16", "BF16", "Q8_0", "F32")  # best first
WORDS = re.compile(r"[-._]")
REMEMBERED = 1024  # files, so that a folder that is looked at again is not read again

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Projector:
    path: Path
    size: int  # bytes
    widths: frozenset[int]  # among them the width of the embeddings that it makes


def is_projector(name: str) -> bool:
    """By its usual name, which is how it is told from a model without being read."""
    return name.lower().endswith(".gguf") and PROJECTOR.search(name) is not None


def usual(names: Iterable[str]) -> str | None:
    """Of several projectors of one model the one whose type is both exact and small."""
    return min(filter(is_projector, names), key=_rank, default=None)


def projectors_in(folder: Path) -> list[Projector]:
    """Those in this folder that are whole. Blocks; for a thread."""
    try:
        paths = [entry for entry in folder.iterdir() if is_projector(entry.name) and not entry.name.startswith(".")]
    except OSError:  # gone in the meantime
        return []
    return [projector for path in paths if (projector := _projector(path))]


def projector_for(model: Path, facts: Facts, projectors: Sequence[Projector]) -> Projector | None:
    """Of those that fit the model the one that is named most like it. Pure."""
    fitting = [each for each in projectors if fits(each, facts)]
    words = _words(model.name)
    return min(fitting, key=lambda each: (-len(words & _words(each.path.name)), *_rank(each.path.name)), default=None)


def fits(projector: Projector, facts: Facts) -> bool:
    """Whether it makes what the model reads. A model that does not tell what that is takes any."""
    return not facts.embedding_length or facts.embedding_length in projector.widths


def _projector(path: Path) -> Projector | None:
    try:
        info = path.stat()
        return _read(path, info.st_size, info.st_mtime_ns)
    except OSError:
        return None


@functools.lru_cache(REMEMBERED)
def _read(path: Path, size: int, changed: int) -> Projector | None:
    """The file as it was at this moment; None when it is no projector for images, or not whole yet."""
    try:
        header = read_header(path)
    except InvalidModelFile as error:
        _log.warning("projector_unread", path=str(path), reason=error.message)
        return None
    hears_only = header.metadata.get("clip.has_audio_encoder") and not header.metadata.get("clip.has_vision_encoder")
    return None if hears_only else Projector(path, size, _widths(header))


def _widths(header: Header) -> frozenset[int]:
    """One, where the file names it truly: what old converters wrote there is no width of any of its last layers."""
    named = header.metadata.get("clip.vision.projection_dim")
    return frozenset([named]) if named in header.outer_widths else header.outer_widths


def _rank(name: str) -> tuple[int, int, str]:
    """By type, and then the one that was there before those that were numbered because of it."""
    named = [number for number, kind in enumerate(TYPES) if kind in WORDS.split(name.upper())]
    return min(named, default=len(TYPES)), len(name), name


def _words(name: str) -> set[str]:
    """Without those of types: a projector need not have the model's."""
    return {word for word in WORDS.split(name.upper()) if word not in TYPES}
