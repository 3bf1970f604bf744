"""The devices that this build of llama.cpp sees, and the CPU cores this process may use."""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

from llama_cpp import llama_cpp as ll

from atelier.errors import LoadFailed

_KINDS = {0: "cpu", 1: "gpu", 2: "integrated gpu", 3: "accelerator"}  # enum ggml_backend_dev_type
TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Device:
    name: str  # CUDA0, Vulkan1, CPU
    description: str
    kind: str
    memory_total: int = 0  # bytes
    memory_free: int = 0


def visible_devices() -> list[Device]:
    """As llama.cpp's own backend list has them, after the environment hid what it hides."""
    ggml = _ggml()
    return [_device(ggml, ggml.ggml_backend_dev_get(i)) for i in range(ggml.ggml_backend_dev_count())]


def gpus(devices: list[Device]) -> list[Device]:
    return [device for device in devices if device.kind in ("gpu", "integrated gpu")]


def require_device(wanted: str, devices: list[Device]) -> None:
    """LoadFailed unless the devices named by the `device` setting are here; "auto" takes what there is."""
    if wanted in ("auto", "cpu"):
        return
    backend, _, numbers = wanted.partition(":")
    count = len(numbers.split(",")) if numbers else 1
    found = [device for device in gpus(devices) if device.name.lower().startswith(_PREFIXES.get(backend, (backend,)))]
    if len(found) < count:
        seen = ", ".join(device.name for device in devices) or "none"
        raise LoadFailed(f"Device {wanted} is not here. llama.cpp sees: {seen}. Choose one of these.", param="device")


_PREFIXES = {"metal": ("metal", "mtl")}


def physical_cores() -> int:
    """Physical cores among those this process may use; logical ones where the system does not say."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len({_core_id(cpu) for cpu in allowed})


def _core_id(cpu: int) -> str:
    try:
        return (TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _ggml() -> ctypes.CDLL:
    library = Path(ll._lib._name)
    ggml = ctypes.CDLL(str(library.with_name(library.name.replace("llama", "ggml"))))
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for name in ("ggml_backend_dev_name", "ggml_backend_dev_description"):
        getattr(ggml, name).restype = ctypes.c_char_p
        getattr(ggml, name).argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_memory.restype = None
    ggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, *[ctypes.POINTER(ctypes.c_size_t)] * 2]
    ggml.ggml_backend_dev_type.restype = ctypes.c_int
    ggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    return ggml


def _device(ggml: ctypes.CDLL, handle: int) -> Device:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    return Device(
        ggml.ggml_backend_dev_name(handle).decode(),
        ggml.ggml_backend_dev_description(handle).decode(),
        _KINDS.get(ggml.ggml_backend_dev_type(handle), "other"),
        total.value,
        free.value,
    )
