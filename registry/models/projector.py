"""What turns images into what a model reads: a file of its own that lies beside the model."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROJECTOR = re.compile(r"mmproj", re.IGNORECASE)
TYPES = ("F16", "BF16", "Q8_0", "F32")  # best first


@dataclass(frozen=True, slots=True)
class Projector:
    path: Path
    size: int  # bytes


def is_projector(name: str) -> bool:
    """By its usual name, which is how it is told from a model without being read."""
    return name.lower().endswith(".gguf") and PROJECTOR.search(name) is not None


def usual(names: Iterable[str]) -> str | None:
    """Of several projectors of one model the one whose type is both exact and small."""

    def rank(name: str) -> tuple[int, str]:
        named = [number for number, kind in enumerate(TYPES) if kind in re.split(r"[-._]", name.upper())]
        return min(named, default=len(TYPES)), name

    return min(filter(is_projector, names), key=rank, default=None)


def projector_in(folder: Path) -> Projector | None:
    """The projector of the models in this folder. Blocks; for a thread."""
    try:
        name = usual(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        path = folder / name if name else None
        return Projector(path, path.stat().st_size) if path else None
    except OSError:  # gone in the meantime, with its folder perhaps
        return None
