"""Which instances make room in memory for another one: pure.

Never one that is busy, never one that an operator loaded; of the others those that were unused for longest, and
no more of them than are needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from registry.devices.device import CPU, Inventory

SHARES = {"off": 0.0, "relaxed": 0.0, "balanced": 0.05, "strict": 0.15}
"""Of all memory, that loads leave free, by the guardrail's name."""


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
    whole: int  # bytes, weights included


def committed(residents: Sequence[Resident]) -> int:
    """Bytes of main memory that they take together.

    The kernel does not tell: it counts a mapped file's pages as available, since it could read them again.
    """
    files: set[str] = set()
    total = 0
    for resident in residents:
        total += resident.whole - (min(resident.weights, resident.whole) if resident.file in files else 0)
        files.add(resident.file)
    return total


def without(inventory: Inventory, coming: Sequence[Mapping[str, int]], kept: int) -> Inventory:
    """What is left beside what was granted to instances that load, by device, and bytes of main memory to keep."""

    def granted(device: str) -> int:
        return sum(each.get(device, 0) for each in coming)

    gpus = [replace(gpu, free=max(0, gpu.free - granted(gpu.id))) for gpu in inventory.gpus]
    return replace(inventory, gpus=gpus, memory_available=max(0, inventory.memory_available - granted(CPU) - kept))


def evictions(needed: int, available: int, tenants: Sequence[Tenant]) -> list[str] | None:
    """The ids of those that have to go, so that `needed` bytes are available; None when nothing would help."""
    missing = needed - available
    going: list[Tenant] = []
    for tenant in sorted(tenants, key=lambda tenant: -tenant.idle_seconds):
        if sum(each.memory for each in going) >= missing:
            break
        if tenant.evictable:
            going.append(tenant)
    if sum(each.memory for each in going) < missing:
        return None
    for tenant in list(going):  # one that was taken early may not be needed after a large one
        if sum(each.memory for each in going) - tenant.memory >= missing:
            going.remove(tenant)
    return [tenant.id for tenant in going]
