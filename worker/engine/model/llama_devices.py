"""The devices that this build of llama.cpp sees."""

import ctypes
from dataclasses import dataclass

from llama_cpp import llama_cpp as ll

from atelier.errors import LoadFailed

_KINDS = {0: "cpu", 1: "gpu", 2: "integrated gpu", 3: "accelerator"}  # enum ggml_backend_dev_type


@dataclass(frozen=True, slots=True)
class LlamaDevice:
    name: str  # CUDA0, Vulkan1, CPU
    description: str
    kind: str
    memory_total: int = 0  # bytes
    memory_free: int = 0
    bus_id: str = ""  # "0000:c1:00.0"; empty if it is on no PCI bus


def visible_devices() -> list[LlamaDevice]:
    """The devices of llama.cpp's backends, without those that environment variables hide."""
    ggml = open_ggml()
    return [_device(ggml, ggml.ggml_backend_dev_get(i)) for i in range(ggml.ggml_backend_dev_count())]


def gpus(devices: list[LlamaDevice]) -> list[LlamaDevice]:
    return [device for device in devices if device.kind in ("gpu", "integrated gpu")]


def require_device(wanted: str, devices: list[LlamaDevice]) -> None:
    """Raises LoadFailed if devices that the `device` setting names are missing; "auto" accepts any."""
    if wanted in ("auto", "cpu"):
        return
    backend, _, numbers = wanted.partition(":")
    count = len(numbers.split(",")) if numbers else 1
    found = [device for device in gpus(devices) if device.name.lower().startswith(_PREFIXES.get(backend, (backend,)))]
    if len(found) < count:
        seen = ", ".join(device.name for device in devices) or "none"
        raise LoadFailed(f"There is no device {wanted}. llama.cpp sees: {seen}. Choose one of these.", param="device")


_PREFIXES = {"metal": ("metal", "mtl")}


def open_ggml() -> ctypes.CDLL:
    """The ggml library, with the functions for devices.

    Opened through llama.cpp itself: wheels contain no symbolic links, so each name of the library is a file of its
    own, and opening another file loads a second ggml, whose devices llama.cpp never sees.
    """
    ggml = ctypes.CDLL(ll._lib._name)
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    ggml.ggml_backend_register.restype = None
    ggml.ggml_backend_register.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_get_props.restype = None
    ggml.ggml_backend_dev_get_props.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Props)]
    ggml.ggml_backend_cpu_buffer_type.restype = ctypes.c_void_p
    ggml.ggml_backend_cpu_buffer_type.argtypes = []
    ggml.ggml_backend_dev_buffer_type.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_buffer_type.argtypes = [ctypes.c_void_p]
    return ggml


def buffer_types(wanted: str) -> dict[str, int]:
    """llama.cpp's handles for memory, by device: "cpu", and the devices that the `device` setting names.

    They are visible here in the order of their names; with "auto" under their own.
    """
    ggml, devices = open_ggml(), visible_devices()
    seen = [(number, device) for number, device in enumerate(devices) if device in gpus(devices)]
    names = _names(wanted) or [_setting_name(device.name) for _, device in seen]
    handles = {
        name: ggml.ggml_backend_dev_buffer_type(ggml.ggml_backend_dev_get(number))
        for name, (number, _) in zip(names, seen, strict=False)
    }
    return {**handles, "cpu": ggml.ggml_backend_cpu_buffer_type()}


def _names(wanted: str) -> list[str]:
    backend, _, numbers = wanted.partition(":")
    if backend in ("auto", "cpu"):
        return []
    return [f"{backend}:{int(number)}" for number in numbers.split(",")] if numbers else [backend]


def _setting_name(name: str) -> str:
    """llama.cpp's CUDA0 as cuda:0."""
    backend = name.rstrip("0123456789")
    return f"{backend.lower()}:{name[len(backend) :]}"


class _Props(ctypes.Structure):
    """struct ggml_backend_dev_props of ggml-backend.h, which changes with the version of llama.cpp."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("caps", ctypes.c_bool * 5),
    )


def _device(ggml: ctypes.CDLL, handle: int) -> LlamaDevice:
    props = _Props()
    ggml.ggml_backend_dev_get_props(handle, ctypes.byref(props))
    return LlamaDevice(
        props.name.decode(),
        props.description.decode(),
        _KINDS.get(props.type, "other"),
        props.memory_total,
        props.memory_free,
        (props.device_id or b"").decode(),
    )
