"""From load settings to the devices and cores that a worker may use, and to its environment. Pure.

Devices are set in the environment because every backend reads it once, before llama.cpp's first call. Backends
differ in how all of their devices are hidden:

- CUDA: an index that does not exist ends the list, so -1 hides all.
- HIP: the same; an empty value counts as unset, and CUDA_VISIBLE_DEVICES is read in its place.
- Vulkan (ggml): an empty list hides all; an index that does not exist is fatal.
- RPC: a variable of this project, which names the servers; a worker connects to no others.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from atelier.errors import InvalidRequest
from atelier.launch import RPC_SERVERS
from atelier.settings import Load

VISIBLE = {
    "cuda": "CUDA_VISIBLE_DEVICES",
    "rocm": "HIP_VISIBLE_DEVICES",
    "vulkan": "GGML_VK_VISIBLE_DEVICES",
    "rpc": RPC_SERVERS,
}
HIDDEN = {"cuda": "-1", "rocm": "-1", "vulkan": "", "rpc": ""}
DEVICE = re.compile(r"(?P<backend>cuda|rocm|vulkan|rpc):(?P<numbers>\d{1,3}(?:,\d{1,3})*)")
CORE_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")

NEEDED = frozenset({"HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "VIRTUAL_ENV", "ATELIER_LOG_LEVEL"})
NEEDED_PREFIXES = (
    *("CUDA_", "NVIDIA_", "HIP_", "HSA_", "ROCR_", "VK_", "GGML_"),
    *("OMP_", "GOMP_", "KMP_"),
    *("PYTHON", "DYLD_", "LC_", "XDG_"),
)


@dataclass(frozen=True, slots=True)
class Pin:
    """The device and cores that a worker is restricted to."""

    device: str
    cores: list[int]  # empty: as inherited
    description: str  # human-readable: "cuda:1 cores 0-7"
    environment: dict[str, str] = field(default_factory=dict)


def pin(load: Load, available: Collection[int]) -> Pin:
    """For a worker with these settings, on a machine with the `available` cores.

    Raises InvalidRequest, which names `device` or `cores`.
    """
    cores = parse_cores(load.cores, available) if load.cores is not None else []
    environment = device_environment(load.device)
    return Pin(load.device, cores, describe(load.device, cores or available), environment)


def device_environment(device: str) -> dict[str, str]:
    """The variables that make this device visible to a worker and hide all others. Raises InvalidRequest."""
    if device == "auto":
        return {}
    if device in ("cpu", "metal"):
        return {VISIBLE[backend]: HIDDEN[backend] for backend in VISIBLE}
    match = DEVICE.fullmatch(device)
    if match is None:
        raise InvalidRequest(
            'device must be "auto", "cpu", "metal", or a backend (cuda, rocm, vulkan, rpc) with device numbers, '
            'such as "cuda:1" or "cuda:0,1".',
            param="device",
        )
    hidden = {VISIBLE[backend]: HIDDEN[backend] for backend in VISIBLE if backend != match["backend"]}
    return hidden | _shown(match["backend"], match["numbers"])


def within_visible(inherited: Mapping[str, str], pinned: Mapping[str, str]) -> dict[str, str]:
    """What pins a worker if this server itself is restricted to some of the machine's devices.

    The server's devices are numbered from 0, as llama.cpp numbers those that it sees:

        CUDA_VISIBLE_DEVICES=3,5 for the server, cuda:1 for the worker  -->  CUDA_VISIBLE_DEVICES=5
        ATELIER_RPC_SERVERS=a:50052,b:50052 for the server, rpc:1 for the worker  -->  ATELIER_RPC_SERVERS=b:50052
    """
    translated = dict(pinned)
    for backend, variable in VISIBLE.items():
        own = [name.strip() for name in inherited.get(variable, "").split(",") if name.strip()]
        wanted = pinned.get(variable, "").split(",")
        if (own or backend == "rpc") and all(number.isdecimal() for number in wanted):
            translated[variable] = (
                ",".join(own[int(number)] for number in wanted if int(number) < len(own)) or HIDDEN[backend]
            )
    return translated


def worker_environment(inherited: Mapping[str, str], pinned: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a worker: what it needs of the registry's, without secrets, then what pins it."""
    kept = {name: value for name, value in inherited.items() if name in NEEDED or name.startswith(NEEDED_PREFIXES)}
    return {**kept, "ATELIER_LOG_FORMAT": "json", **pinned}


def parse_cores(text: str, available: Collection[int]) -> list[int]:
    """The cores of a list such as "0-3,6", sorted. Raises InvalidRequest if one is not available."""
    cores: set[int] = set()
    for part in text.split(","):
        match = CORE_RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise InvalidRequest('cores must be a list such as "0-3,6".', param="cores")
        for core in range(first, last + 1):
            if core not in available:
                raise _no_such_core(core, available)
            cores.add(core)
    return sorted(cores)


def describe(device: str, cores: Collection[int], devices: Collection[str] = ()) -> str:
    """Human-readable: what a worker runs on. `devices` are those that it reports to use."""
    chosen = device if device != "auto" else (", ".join(devices).lower() or "auto")
    return f"{chosen} cores {format_cores(cores)}"


def format_cores(cores: Collection[int]) -> str:
    """[0, 1, 2, 5] as "0-2,5"."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and runs[-1][1] == core - 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _shown(backend: str, numbers: str) -> dict[str, str]:
    chosen = numbers.split(",")
    if len(set(map(int, chosen))) < len(chosen):
        raise InvalidRequest(f"device names the same {backend} device twice.", param="device")
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if backend == "cuda" else {}
    return {VISIBLE[backend]: numbers, **order}


def _no_such_core(core: int, available: Collection[int]) -> InvalidRequest:
    return InvalidRequest(f"There is no core {core}; available are {format_cores(available)}.", param="cores")
