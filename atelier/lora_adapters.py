"""LoRA adapters: the entries of the load setting `lora`, and the scales that a request gives them."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from atelier.errors import InvalidRequest

MOST_ADAPTERS = 16  # of an instance
LARGEST_SCALE = 100  # absolute value

# A file's name ends with .gguf, so each equals sign is unambiguous. A path that contains one needs a name.
_ENTRY = re.compile(r"(?:(?P<name>[^=/]+)=)?(?P<path>.+\.gguf)(?:=(?P<scale>[^=]+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter of an instance. Its id is its position there, from 0."""

    name: str
    path: str  # below the folder of adapters; for a worker: absolute
    scale: float  # of requests that set none


@dataclass(frozen=True, slots=True)
class AdapterScale:
    """The scale that a request sets for an adapter, by its id or its name."""

    adapter: int | str
    scale: float


Scales = tuple[float, ...]
"""One scale for each of an instance's adapters, by id. Empty where all are off: then results are the bare model's."""


def read_adapters(entries: Sequence[str]) -> tuple[Adapter, ...]:
    """The adapters that the load setting `lora` lists. Raises InvalidRequest for a malformed entry."""
    adapters = tuple(map(_read, entries))
    name, count = Counter(adapter.name for adapter in adapters).most_common(1)[0] if adapters else ("", 0)
    if count > 1:
        raise InvalidRequest(f'lora: two adapters are named "{name}"; name one of them with NAME=FILE', param="lora")
    return adapters


def _read(entry: str) -> Adapter:
    if (match := _ENTRY.fullmatch(entry)) is None:
        raise InvalidRequest(f'lora: "{entry[:200]}" is not of the form [NAME=]FILE.gguf[=SCALE]', param="lora")
    scale = _scale(match["scale"]) if match["scale"] is not None else 1.0
    return Adapter(match["name"] or PurePosixPath(match["path"]).stem, match["path"], scale)


def _scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = float("nan")
    if not -LARGEST_SCALE <= scale <= LARGEST_SCALE:
        raise InvalidRequest(
            f'lora: a scale is between {-LARGEST_SCALE} and {LARGEST_SCALE}, not "{text[:40]}"', param="lora"
        )
    return scale
