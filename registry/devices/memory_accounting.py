"""How much memory is left for another instance. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from atelier.machine_memory import cache_share
from registry.devices.compute_device import CPU, Device, Inventory

SHARES = {"off": 0.0, "relaxed": 0.0, "balanced": 0.05, "strict": 0.15}
"""The share of all memory that loads leave free, by the guardrail's name."""
SELF_REPORTING = ("metal",)
"""Backends that report to a process what it has taken of a device's memory itself, but not what others have."""


def guardrail(name: str, custom: int) -> tuple[float, int]:
    """The share of every device's memory that stays free, and bytes of main memory, for "custom" only."""
    return (0.0, custom) if name == "custom" else (SHARES[name], 0)


def not_yet_taken(memory: Mapping[str, int], progress: float) -> dict[str, int]:
    """What a loading instance will still take, by device: free memory no longer contains what it has taken."""
    return {device: round(taken * (1 - progress)) for device, taken in memory.items()}


@dataclass(frozen=True, slots=True)
class Resident:
    """What an instance occupies of main memory while it is loaded."""

    file: str  # of its weights, whose pages instances of one file share
    weights: int  # bytes
    whole: int  # bytes, weights included, as far as they are not on a GPU

    @property
    def mapped(self) -> int:
        return min(self.weights, self.whole)


def committed_memory(residents: Sequence[Resident]) -> int:
    """Bytes of main memory that they hold together.

    The kernel counts a mapped file's pages as available, since it could read them again.
    """
    own = sum(resident.whole - resident.mapped for resident in residents)
    return own + sum(shared_pages(residents, file) for file in {resident.file for resident in residents})


def shared_pages(residents: Sequence[Resident], file: str) -> int:
    """Bytes of the file that are in main memory already."""
    return max((resident.mapped for resident in residents if resident.file == file), default=0)


def minus_granted(inventory: Inventory, granted: Sequence[Mapping[str, int]], kept: int) -> Inventory:
    """Without what was granted to loading instances, by device, and without `kept` bytes of main memory."""

    def taken(device: str) -> int:
        return sum(each.get(device, 0) for each in granted)

    gpus = [replace(gpu, free=max(0, gpu.free - taken(gpu.id))) for gpu in inventory.gpus]
    return replace(inventory, gpus=gpus, memory_available=max(0, inventory.memory_available - taken(CPU) - kept))


@dataclass(frozen=True, slots=True)
class Cache:
    """Saved prefixes of an instance in main memory, which make way for other models."""

    instance_id: str
    used: int  # bytes
    limit: int  # bytes that it may take
    idle_seconds: float  # of its instance


def plus_caches(inventory: Inventory, caches: Sequence[Cache]) -> Inventory:
    """With the main memory that the caches would free."""
    available = inventory.memory_available + sum(cache.used for cache in caches)
    return replace(inventory, memory_available=min(inventory.memory_total, available))


def caches_to_release(missing: int, caches: Sequence[Cache]) -> dict[str, int]:
    """Bytes that each cache gives up so that `missing` become free; those of the longest idle instances first."""
    released: dict[str, int] = {}
    for cache in sorted(caches, key=lambda cache: -cache.idle_seconds):
        if missing > 0 and cache.used:
            released[cache.instance_id] = min(cache.used, missing)
            missing -= cache.used
    return released


def sized_cache(free: int, caches: Sequence[Cache]) -> int:
    """Bytes for another cache beside these, where `free` bytes are available with what they have taken."""
    return cache_share(free - sum(cache.limit for cache in caches))


def plus_freed(inventory: Inventory, unloaded: Sequence[Mapping[str, int]]) -> Inventory:
    """With what unloading frees, by device."""

    def freed(device: str) -> int:
        return sum(each.get(device, 0) for each in unloaded)

    gpus = [replace(gpu, free=min(gpu.total, gpu.free + freed(gpu.id))) for gpu in inventory.gpus]
    available = min(inventory.memory_total, inventory.memory_available + freed(CPU))
    return replace(inventory, gpus=gpus, memory_available=available)


def minus_loaded(inventory: Inventory, loaded: Sequence[Mapping[str, int]]) -> Inventory:
    """Without the estimates of loaded instances, on devices that do not report what other processes take."""

    def left(gpu: Device) -> int:
        return max(0, min(gpu.free, gpu.total - sum(each.get(gpu.id, 0) for each in loaded)))

    gpus = [replace(gpu, free=left(gpu)) if gpu.backend in SELF_REPORTING else gpu for gpu in inventory.gpus]
    return replace(inventory, gpus=gpus)


def exclusive_memory(inventory: Inventory, memory: Mapping[str, int]) -> dict[str, int]:
    """What no other instance can have, by device: all of an exclusive device, of another what the instance takes."""
    whole = {gpu.id: gpu.total for gpu in inventory.gpus if gpu.exclusive}
    return {device: whole.get(device, taken) for device, taken in memory.items()}
