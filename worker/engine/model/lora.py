"""LoRA adapters: the scale of each in a request, and their use in a context."""

import ctypes
import os
from collections.abc import Sequence

from llama_cpp import llama_cpp as ll

from atelier.errors import DecodeFailed, InvalidRequest
from atelier.lora_adapters import Adapter, AdapterScale, Scales
from worker.engine.model.loaded_model import LlamaLog, LoadedModel, load_error


class Adapters:
    """Owns a model's llama_adapter_loras, which llama.cpp frees with the model. Created before any context."""

    def __init__(self, model: LoadedModel, adapters: Sequence[Adapter], log: LlamaLog) -> None:
        """Raises LoadFailed for a file that is no adapter of this model."""
        self._handles = [_load(model, adapter, log) for adapter in adapters]

    def set(self, context: ll.llama_context_p, scales: Scales) -> None:
        """The context computes with these scales from now on. Raises DecodeFailed."""
        chosen = [(handle, scale) for handle, scale in zip(self._handles, scales, strict=False) if scale]
        handles = (ll.llama_adapter_lora_p_ctypes * len(chosen))(*(handle for handle, _ in chosen))
        factors = (ctypes.c_float * len(chosen))(*(scale for _, scale in chosen))
        if (code := ll.llama_set_adapters_lora(context, handles, len(chosen), factors)) != 0:
            raise DecodeFailed(f"llama.cpp could not use the adapters (llama_set_adapters_lora returned {code}).")


def _load(model: LoadedModel, adapter: Adapter, log: LlamaLog) -> ll.llama_adapter_lora_p:
    handle = ll.llama_adapter_lora_init(model.handle, os.fsencode(adapter.path))
    if not handle:
        raise load_error(log, f'The adapter "{adapter.name}" could not be loaded')
    return handle


def choose_scales(requested: Sequence[AdapterScale], adapters: Sequence[Adapter]) -> Scales:
    """The requested scales, with 0 for all other adapters, as in llama.cpp's server; without any, the adapters' own.

    Raises InvalidRequest for an unknown adapter, and for one that is named twice.
    """
    scales = [0.0] * len(adapters) if requested else [adapter.scale for adapter in adapters]
    chosen: set[int] = set()
    for number, each in enumerate(requested):
        if (id := _find(each, number, adapters)) in chosen:
            raise InvalidRequest(f"lora[{number}]: adapter {id} is named twice.", param=f"lora[{number}]")
        chosen.add(id)
        scales[id] = each.scale
    return tuple(scales) if any(scales) else ()


def _find(requested: AdapterScale, number: int, adapters: Sequence[Adapter]) -> int:
    for id, adapter in enumerate(adapters):
        if requested.adapter in (id, adapter.name):
            return id
    field = f"lora[{number}].{'id' if isinstance(requested.adapter, int) else 'name'}"
    known = ", ".join(f'{id} "{adapter.name}"' for id, adapter in enumerate(adapters))
    raise InvalidRequest(
        f"{field}: unknown adapter. This instance has {known or 'none: load it with adapters'}.", param=field
    )
