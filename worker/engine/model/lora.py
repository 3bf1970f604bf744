"""LoRA adapters: how much of each a request has, and their part in what a context computes."""

import ctypes
import os
from collections.abc import Sequence
from typing import Any

from llama_cpp import llama_cpp as ll

from atelier.adapters import Adapter, AdapterScale, Scales
from atelier.errors import DecodeFailed, InvalidRequest
from worker.engine.model.loaded_model import LlamaLog, Model, load_error


class Adapters:
    """Owns a model's llama_adapter_loras, which llama.cpp frees with the model. Loaded before any context is made."""

    def __init__(self, model: Model, adapters: Sequence[Adapter], log: LlamaLog) -> None:
        """LoadFailed when a file is not one for this model."""
        self._handles = [_load(model, adapter, log) for adapter in adapters]

    def set(self, context: Any, scales: Scales) -> None:
        """What the context computes from now on is computed with these scales."""
        chosen = [(handle, scale) for handle, scale in zip(self._handles, scales, strict=False) if scale]
        handles = (ll.llama_adapter_lora_p_ctypes * len(chosen))(*(handle for handle, _ in chosen))
        factors = (ctypes.c_float * len(chosen))(*(scale for _, scale in chosen))
        if (code := ll.llama_set_adapters_lora(context, handles, len(chosen), factors)) != 0:
            raise DecodeFailed(f"llama.cpp could not use the adapters (llama_set_adapters_lora returned {code}).")


def _load(model: Model, adapter: Adapter, log: LlamaLog) -> Any:
    handle = ll.llama_adapter_lora_init(model.handle, os.fsencode(adapter.path))
    if not handle:
        raise load_error(log, f'The adapter "{adapter.name}" could not be loaded')
    return handle


def choose_scales(wishes: Sequence[AdapterScale], adapters: Sequence[Adapter]) -> Scales:
    """The adapters' own scales without wishes; otherwise those wished for, and 0 for the others, as llama.cpp has it.

    InvalidRequest names the wish that means no adapter.
    """
    scales = [0.0] * len(adapters) if wishes else [adapter.scale for adapter in adapters]
    chosen: set[int] = set()
    for number, wish in enumerate(wishes):
        if (id := _find(wish, number, adapters)) in chosen:
            raise InvalidRequest(f"lora[{number}]: adapter {id} is named twice.", param=f"lora[{number}]")
        chosen.add(id)
        scales[id] = wish.scale
    return tuple(scales) if any(scales) else ()


def _find(wish: AdapterScale, number: int, adapters: Sequence[Adapter]) -> int:
    for id, adapter in enumerate(adapters):
        if wish.adapter in (id, adapter.name):
            return id
    field = f"lora[{number}].{'id' if isinstance(wish.adapter, int) else 'name'}"
    known = ", ".join(f'{id} "{adapter.name}"' for id, adapter in enumerate(adapters))
    raise InvalidRequest(
        f"{field}: this instance has no such adapter. It has {known or 'none: load it with some'}.", param=field
    )
