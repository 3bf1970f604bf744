"""Which instances make room in memory for another one: pure.

Never one that is busy, never one that an operator loaded; of the others those that were unused for longest, and
no more of them than are needed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from registry.devices.compute_device import CPU, Device, Inventory

SHARES = {"off": 0.0, "relaxed": 0.0, "balanced": 0.05, "strict": 0.15}
"""Of all memory, that loads leave free, by the guardrail's name."""
UNTOLD = ("metal",)
"""Backends that tell a process what it has taken of a device's memory itself, and not what others have."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """An instance that takes memory."""

    id: str
    memory: int  # bytes, as estimated before it was loaded
    idle_seconds: float
    evictable: bool  # loaded by a request, and idle now


def guardrail(name: str, custom: int) -> tuple[float, int]:
    """The share of every device's memory that stays free, and bytes of main memory, which only `custom` knows."""
    return (0.0, custom) if name == "custom" else (SHARES[name], 0)


def still_to_come(memory: Mapping[str, int], progress: float) -> dict[str, int]:
    """What an instance that is being loaded does not take yet: what it takes already, the devices tell."""
    return {device: round(taken * (1 - progress)) for device, taken in memory.items()}


@dataclass(frozen=True, slots=True)
class Resident:
    """What an instance has in main memory, for as long as it is loaded."""

    file: str  # of its weights, whose pages instances of one file share
    weights: int  # bytes
    whole: int  # bytes, weights included, as far as they are not on a GPU

    @property
    def mapped(self) -> int:
        return min(self.weights, self.whole)


def committed(residents: Sequence[Resident]) -> int:
    """Bytes of main memory that they take together.

    The kernel does not tell: it counts a mapped file's pages as available, since it could read them again.
    """
    own = sum(resident.whole - resident.mapped for resident in residents)
    return own + sum(shared_pages(residents, file) for file in {resident.file for resident in residents})


def shared_pages(residents: Sequence[Resident], file: str) -> int:
    """Bytes of the file that are in main memory already."""
    return max((resident.mapped for resident in residents if resident.file == file), default=0)


def without(inventory: Inventory, coming: Sequence[Mapping[str, int]], kept: int) -> Inventory:
    """What is left beside what was granted to instances that load, by device, and bytes of main memory to keep."""

    def granted(device: str) -> int:
        return sum(each.get(device, 0) for each in coming)

    gpus = [replace(gpu, free=max(0, gpu.free - granted(gpu.id))) for gpu in inventory.gpus]
    return replace(inventory, gpus=gpus, memory_available=max(0, inventory.memory_available - granted(CPU) - kept))


def freed(inventory: Inventory, gone: Sequence[Mapping[str, int]]) -> Inventory:
    """What is left once instances are gone that took so much, by device."""

    def back(device: str) -> int:
        return sum(each.get(device, 0) for each in gone)

    gpus = [replace(gpu, free=min(gpu.total, gpu.free + back(gpu.id))) for gpu in inventory.gpus]
    available = min(inventory.memory_total, inventory.memory_available + back(CPU))
    return replace(inventory, gpus=gpus, memory_available=available)


def uncommitted(inventory: Inventory, loaded: Sequence[Mapping[str, int]]) -> Inventory:
    """No more of a device that keeps quiet about other processes than what is loaded leaves of it, by estimate."""

    def left(gpu: Device) -> int:
        return max(0, min(gpu.free, gpu.total - sum(each.get(gpu.id, 0) for each in loaded)))

    gpus = [replace(gpu, free=left(gpu)) if gpu.backend in UNTOLD else gpu for gpu in inventory.gpus]
    return replace(inventory, gpus=gpus)


def reserved(inventory: Inventory, memory: Mapping[str, int]) -> dict[str, int]:
    """What nobody else can have while an instance takes so much, by device: all of one that is exclusive."""
    whole = {gpu.id: gpu.total for gpu in inventory.gpus if gpu.exclusive}
    return {device: whole.get(device, taken) for device, taken in memory.items()}


class Candidate(Protocol):
    """What may have to go."""

    @property
    def idle_seconds(self) -> float: ...

    @property
    def evictable(self) -> bool: ...


AnyCandidate = TypeVar("AnyCandidate", bound=Candidate)


def fewest(
    candidates: Sequence[AnyCandidate], enough: Callable[[Sequence[AnyCandidate]], bool]
) -> list[AnyCandidate] | None:
    """Those that have to go so that it is `enough`, none of them for nothing; None when nothing would help."""
    going: list[AnyCandidate] = []
    for candidate in sorted(candidates, key=lambda candidate: -candidate.idle_seconds):
        if enough(going):
            break
        if candidate.evictable:
            going.append(candidate)
    if not enough(going):
        return None
    for candidate in list(going):  # one that was taken early may not be needed after a large one
        rest = [each for each in going if each is not candidate]
        if enough(rest):
            going = rest
    return going


def evictions(needed: int, available: int, tenants: Sequence[Tenant]) -> list[str] | None:
    """The ids of those that have to go, so that `needed` bytes are available; None when nothing would help."""
    missing = needed - available
    going = fewest(tenants, lambda going: sum(each.memory for each in going) >= missing)
    return None if going is None else [tenant.id for tenant in going]
