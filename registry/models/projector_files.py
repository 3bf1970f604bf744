"""Image projectors (mmproj): files beside a model that encode images into its embeddings."""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from atelier.errors import InvalidModelFile
from registry.models.gguf_header import Header, read_header
from registry.models.model_facts import ModelFacts

PROJECTOR = re.compile(r"mmproj", re.IGNORECASE)
TYPES = ("F16", "BF16", "Q8_0", "F32")  # best first
WORDS = re.compile(r"[-._]")
CACHED = 1024  # projectors, so that polling a folder does not read its files again

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProjectorFile:
    path: Path
    size: int  # bytes
    widths: frozenset[int]  # candidates for the width of the embeddings that it produces


def is_projector(name: str) -> bool:
    """By its usual name, so that the file need not be read."""
    return name.lower().endswith(".gguf") and PROJECTOR.search(name) is not None


def usual(names: Iterable[str]) -> str | None:
    """Of several projectors of one model, the one whose type is both precise and small."""
    return min(filter(is_projector, names), key=_rank, default=None)


def projectors_in(folder: Path) -> list[ProjectorFile]:
    """The complete projectors in this folder. Blocks; for a thread."""
    try:
        paths = [entry for entry in folder.iterdir() if is_projector(entry.name) and not entry.name.startswith(".")]
    except OSError:  # gone in the meantime
        return []
    return [projector for path in paths if (projector := _projector(path))]


def projector_for(model: Path, facts: ModelFacts, projectors: Sequence[ProjectorFile]) -> ProjectorFile | None:
    """Of those that fit the model, the one with the most similar name. Pure."""
    fitting = [each for each in projectors if fits(each, facts)]
    words = _words(model.name)
    return min(fitting, key=lambda each: (-len(words & _words(each.path.name)), *_rank(each.path.name)), default=None)


def fits(projector: ProjectorFile, facts: ModelFacts) -> bool:
    """Whether its embeddings have the model's width. A model whose width is unknown accepts any."""
    return not facts.embedding_length or facts.embedding_length in projector.widths


def _projector(path: Path) -> ProjectorFile | None:
    try:
        info = path.stat()
        return _read(path, info.st_size, info.st_mtime_ns)
    except OSError:
        return None


@functools.lru_cache(CACHED)
def _read(path: Path, size: int, changed: int) -> ProjectorFile | None:
    """Cached by size and time of change. None if it is not an image projector, or not complete yet."""
    try:
        header = read_header(path)
    except InvalidModelFile as error:
        _log.warning("projector_unread", path=str(path), reason=error.message)
        return None
    audio_only = header.metadata.get("clip.has_audio_encoder") and not header.metadata.get("clip.has_vision_encoder")
    return None if audio_only else ProjectorFile(path, size, _widths(header))


def _widths(header: Header) -> frozenset[int]:
    """The width that the file names, if a last layer has it: old converters wrote the encoder's there instead."""
    named = header.metadata.get("clip.vision.projection_dim")
    return frozenset([named]) if named in header.outer_widths else header.outer_widths


def _rank(name: str) -> tuple[int, int, str]:
    """By type, then by length of the name: imports add numbers to names that were taken."""
    named = [number for number, kind in enumerate(TYPES) if kind in WORDS.split(name.upper())]
    return min(named, default=len(TYPES)), len(name), name


def _words(name: str) -> set[str]:
    """The words of a name, without types: a projector's type may differ from the model's."""
    return {word for word in WORDS.split(name.upper()) if word not in TYPES}
