"""LoRA adapters: how they are named when an instance is loaded, and how strongly a request wants each of them."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from atelier.errors import InvalidRequest
from atelier.limits import LARGEST_SCALE, MOST_ADAPTERS
from protos.inference_pb2 import AdapterScale as AdapterScaleMessage
from protos.inference_pb2 import Submit

# A file's name ends with .gguf, so both equals signs tell what they stand for. A path that has one needs a name.
_ENTRY = re.compile(r"(?:(?P<name>[^=/]+)=)?(?P<path>.+\.gguf)(?:=(?P<scale>[^=]+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Adapter:
    """One of an instance's adapters. Its number there, from 0, is its id."""

    name: str
    path: str  # below the folder of adapters; for a worker: absolute
    scale: float  # of requests that name none


@dataclass(frozen=True, slots=True)
class AdapterScale:
    """A request's wish for an adapter, by its id or its name."""

    adapter: int | str
    scale: float


Scales = tuple[float, ...]
"""One for each of an instance's adapters, by id. Empty where none takes part: that is the model alone, to the bit."""


def read_adapters(entries: Sequence[str]) -> tuple[Adapter, ...]:
    """The adapters that the load setting `lora` names; InvalidRequest says what is wrong with an entry."""
    adapters = tuple(map(_read, entries))
    name, count = Counter(adapter.name for adapter in adapters).most_common(1)[0] if adapters else ("", 0)
    if count > 1:
        raise InvalidRequest(f'lora: two adapters are called "{name}"; name one of them, NAME=FILE', param="lora")
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


def set_scales(submit: Submit, scales: Sequence[AdapterScale]) -> None:
    for wish in scales:
        chosen = {"id": wish.adapter} if isinstance(wish.adapter, int) else {"name": wish.adapter}
        submit.lora.append(AdapterScaleMessage(**chosen, scale=wish.scale))


def read_scales(submit: Submit) -> list[AdapterScale]:
    """What the call wants of each adapter; InvalidRequest when it cannot be."""
    if len(submit.lora) > MOST_ADAPTERS:
        raise InvalidRequest(f"lora takes at most {MOST_ADAPTERS} entries", param="lora")
    return [AdapterScale(_adapter(each), each.scale) for each in submit.lora]


def _adapter(message: AdapterScaleMessage) -> int | str:
    return message.id if message.WhichOneof("adapter") == "id" else message.name
