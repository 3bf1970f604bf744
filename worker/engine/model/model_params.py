"""llama.cpp's parameters for loading a model, from load settings."""

import ctypes
from collections.abc import Callable
from typing import Any

from llama_cpp import llama_cpp as ll

from atelier.errors import LoadFailed
from atelier.settings.groups import Load
from atelier.tensor_placement import tensor_overrides
from worker.engine.model.llama_devices import buffer_types

ALL_LAYERS = -1
_SPLIT_MODES = {"layer": ll.LLAMA_SPLIT_MODE_LAYER, "none": ll.LLAMA_SPLIT_MODE_NONE}
_LOAD_MODES = {  # by mmap, mlock
    (False, False): ll.LLAMA_LOAD_MODE_NONE,
    (True, False): ll.LLAMA_LOAD_MODE_MMAP,
    (False, True): ll.LLAMA_LOAD_MODE_MLOCK,
    (True, True): ll.LLAMA_LOAD_MODE_MMAP_MLOCK,
}


class ModelParams:
    """Owns what llama.cpp's structure points to. Has to outlive the load."""

    def __init__(self, load: Load, architecture: str, on_progress: Callable[[float], bool]) -> None:
        """`on_progress` returns False to give up. Raises LoadFailed."""
        self._progress = ll.llama_progress_callback(lambda fraction, _data: on_progress(fraction))
        self.value = ll.llama_model_default_params()
        self.value.n_gpu_layers = _gpu_layers(load)
        self.value.load_mode = int(_LOAD_MODES[load.mmap, load.mlock])
        self.value.split_mode = _SPLIT_MODES[load.split_mode]
        self.value.main_gpu = load.main_gpu
        self.value.tensor_split = _tensor_split(load)
        self.value.progress_callback = self._progress
        self.tensor_overrides = _tensor_overrides(load)
        if self.tensor_overrides is not None:
            self.value.tensor_buft_overrides = ctypes.addressof(self.tensor_overrides)
        self.value.kv_overrides = _metadata_overrides(load, architecture)


class _TensorOverride(ctypes.Structure):
    """struct llama_model_tensor_buft_override."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def _tensor_overrides(load: Load) -> ctypes.Array[_TensorOverride] | None:
    if not (overrides := tensor_overrides(load)):
        return None
    types = buffer_types(load.device)
    if missing := [override.device for override in overrides if override.device not in types]:
        raise LoadFailed(
            f"override_tensor names {missing[0]}, and this worker has {', '.join(types)}: choose one of these.",
            param="override_tensor",
        )
    entries = [_TensorOverride(override.pattern.encode(), types[override.device]) for override in overrides]
    return (_TensorOverride * (len(entries) + 1))(*entries)  # ends with an empty one


def _metadata_overrides(load: Load, architecture: str) -> ctypes.Array[Any] | None:
    if load.num_experts is None:
        return None
    entries: ctypes.Array[Any] = (ll.llama_model_kv_override * 2)()  # ends with an empty one
    entries[0].tag = ll.LLAMA_KV_OVERRIDE_TYPE_INT
    entries[0].key = f"{architecture}.expert_used_count".encode()
    entries[0].value.val_i64 = load.num_experts
    return entries


def _gpu_layers(load: Load) -> int:
    if load.device == "cpu":
        return 0
    return ALL_LAYERS if load.gpu_layers is None else load.gpu_layers


def _tensor_split(load: Load) -> ctypes.Array[ctypes.c_float] | None:
    """One share per device. ctypes keeps the array alive with the structure that it is assigned to."""
    if not load.tensor_split:
        return None
    size: int = ll.llama_max_devices()
    return (ctypes.c_float * size)(*load.tensor_split[:size])
