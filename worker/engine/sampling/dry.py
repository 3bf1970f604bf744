"""llama.cpp's DRY sampler: it keeps a text from repeating sequences of tokens."""

import ctypes
import weakref
from functools import lru_cache
from typing import Any

from llama_cpp import llama_cpp as ll

from atelier.settings.groups import Inference
from worker.engine.model.vocabulary import Vocabulary


def dry_enabled(settings: Inference) -> bool:
    return settings.dry_multiplier > 0 and settings.dry_penalty_last_n > 0


def dry_stage(settings: Inference, vocabulary: Vocabulary) -> Any:
    """A llama_sampler of the caller's. It has seen no tokens yet."""
    prototype = _prototype(
        vocabulary,
        settings.dry_multiplier,
        settings.dry_base,
        settings.dry_allowed_length,
        settings.dry_penalty_last_n,
        tuple(settings.dry_sequence_breakers),
    )
    return ll.llama_sampler_clone(prototype.handle)


class _Prototype:
    def __init__(self, handle: Any) -> None:
        self.handle = handle
        weakref.finalize(self, ll.llama_sampler_free, handle).atexit = False


# To find a breaker's tokens llama.cpp walks the whole vocabulary, for each breaker. Measured on one of
# 49,152: 30 ms for the usual four, 0.1 ms for a copy.
@lru_cache(maxsize=8)
def _prototype(
    vocabulary: Vocabulary, multiplier: float, base: float, allowed: int, last_n: int, breakers: tuple[str, ...]
) -> _Prototype:
    encoded = (ctypes.c_char_p * len(breakers))(*(breaker.encode() for breaker in breakers))
    handle = ll.llama_sampler_init_dry(vocabulary.handle, multiplier, base, allowed, last_n, encoded, len(breakers))
    return _Prototype(handle)
