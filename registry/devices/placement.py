"""On which devices a model is put where nobody says so, and what has to go for it: pure.

In this order, the first that is possible:

1. one GPU, whole: the one with the fewest instances; of those the one with the least memory that is enough
2. the fewest GPUs of one backend that hold it together
3. the same two after idle instances are unloaded, as few as are needed
4. as many layers as the GPUs hold, the rest in main memory
5. main memory alone
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from registry.devices.compute_device import CPU, Device, Inventory, readable
from registry.instances.memory_accounting import Tenant, evictions
from registry.models.memory_estimate import Estimate

FEWEST_LAYERS = 0.1  # of a model's; for fewer on a GPU the way to it costs more than it gives


@dataclass(frozen=True, slots=True)
class Need:
    """What a model takes. Each GPU that takes part has compute buffers of its own."""

    estimate: Estimate
    layers: int


@dataclass(frozen=True, slots=True)
class Occupant:
    """An instance that runs or is on its way, and what it takes of each device ("cpu": of main memory)."""

    id: str
    memory: Mapping[str, int]
    idle_seconds: float
    evictable: bool


@dataclass(frozen=True, slots=True)
class Placed:
    """`layers`: on the GPUs; None: all of them."""

    devices: tuple[Device, ...]
    layers: int | None = None
    memory: Mapping[str, int] = field(default_factory=dict)  # bytes by device
    evicted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """What is missing, for people."""

    reason: str


def place(need: Need, inventory: Inventory, occupants: Sequence[Occupant], *, kept: float = 0.0) -> Placed | Refused:
    """`kept`: the share of every device's memory that stays free."""
    for placed in _candidates(need, inventory, occupants, kept):
        return placed
    most = max((gpu.room(kept) for gpu in inventory.gpus), default=0)
    available = inventory.main_room(kept)
    on_gpus = f"; the roomiest GPU has {readable(most)}" if inventory.gpus else ""
    return Refused(
        f"it takes {readable(need.estimate.total)}, and main memory has {readable(available)} to spare{on_gpus}"
    )


def _candidates(need: Need, inventory: Inventory, occupants: Sequence[Occupant], kept: float) -> Iterator[Placed]:
    """The possible placements, the best first."""
    yield from _on_one(need, inventory.gpus, occupants, kept)
    yield from _on_several(need, inventory.gpus, kept)
    yield from _after_evictions(need, inventory.gpus, occupants, kept)
    yield from _in_part(need, inventory, kept)
    yield from _in_main_memory(need, inventory, occupants, kept)


def _on_one(need: Need, gpus: Sequence[Device], occupants: Sequence[Occupant], kept: float) -> Iterator[Placed]:
    fitting = [gpu for gpu in gpus if need.estimate.total <= gpu.room(kept)]
    for gpu in sorted(fitting, key=lambda gpu: (_busyness(gpu, occupants), gpu.free, gpu.id)):
        yield Placed((gpu,), memory={gpu.id: need.estimate.total})


def _on_several(need: Need, gpus: Sequence[Device], kept: float) -> Iterator[Placed]:
    for group in _groups(gpus, kept):
        shares = _shares(need, {gpu.id: gpu.room(kept) for gpu in group})
        if shares is not None:
            yield Placed(tuple(sorted(group, key=lambda gpu: gpu.id)), memory=shares)


def _groups(gpus: Sequence[Device], kept: float) -> Iterator[list[Device]]:
    """Of each backend the roomiest two, three, ...: the fewest first."""
    backends = dict.fromkeys(gpu.backend for gpu in gpus)
    for count in range(2, len(gpus) + 1):
        for backend in backends:
            roomiest = sorted((gpu for gpu in gpus if gpu.backend == backend), key=lambda gpu: -gpu.room(kept))
            if len(roomiest) >= count:
                yield roomiest[:count]


def _shares(need: Need, rooms: Mapping[str, int]) -> dict[str, int] | None:
    """How much each device takes, in proportion to its room; None when they are too small together."""
    usable = {id: room - need.estimate.compute for id, room in rooms.items()}
    to_split = need.estimate.weights + need.estimate.kv_cache
    if min(usable.values()) <= 0 or sum(usable.values()) < to_split:
        return None
    whole = sum(usable.values())
    return {id: -(-to_split * room // whole) + need.estimate.compute for id, room in usable.items()}  # rounded up


def _after_evictions(
    need: Need, gpus: Sequence[Device], occupants: Sequence[Occupant], kept: float
) -> Iterator[Placed]:
    """On the GPU where the fewest have to go, and those that were unused for longest."""
    found: list[tuple[int, float, Placed]] = []
    for gpu in gpus:
        tenants = _tenants(occupants, gpu.id)
        going = evictions(need.estimate.total, gpu.room(kept), tenants)
        if going is not None and need.estimate.total <= gpu.total * (1 - kept):
            idle = max((tenant.idle_seconds for tenant in tenants if tenant.id in going), default=0.0)
            placed = Placed((gpu,), memory={gpu.id: need.estimate.total}, evicted=tuple(going))
            found.append((len(going), -idle, placed))
    yield from (placed for _, _, placed in sorted(found, key=lambda entry: entry[:2]))


def _in_part(need: Need, inventory: Inventory, kept: float) -> Iterator[Placed]:
    """Layers on the roomiest GPU, the rest in main memory."""
    if not inventory.gpus or not need.layers:
        return
    gpu = max(sorted(inventory.gpus, key=lambda gpu: gpu.id), key=lambda gpu: gpu.room(kept))
    layer = max(1, (need.estimate.weights + need.estimate.kv_cache) // (need.layers + 1))  # one more: the output's
    layers = min(need.layers, (gpu.room(kept) - need.estimate.compute) // layer)
    if layers < max(1, FEWEST_LAYERS * need.layers):
        return
    on_gpu = layers * layer + need.estimate.compute
    rest = need.estimate.total - layers * layer
    if rest <= inventory.main_room(kept):
        yield Placed((gpu,), layers, {gpu.id: on_gpu, CPU: rest})


def _in_main_memory(need: Need, inventory: Inventory, occupants: Sequence[Occupant], kept: float) -> Iterator[Placed]:
    going = evictions(need.estimate.total, inventory.main_room(kept), _tenants(occupants, CPU))
    if going is not None:
        yield Placed((), 0, {CPU: need.estimate.total}, tuple(going))


def _tenants(occupants: Sequence[Occupant], device: str) -> list[Tenant]:
    """What takes memory on the device."""
    return [
        Tenant(each.id, each.memory[device], each.idle_seconds, each.evictable)
        for each in occupants
        if device in each.memory
    ]


def _busyness(gpu: Device, occupants: Sequence[Occupant]) -> int:
    return sum(gpu.id in each.memory for each in occupants)
