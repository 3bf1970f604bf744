"""The devices for a model whose request names none, and the instances to unload for it. Pure.

The first of these that is possible:

1. one GPU for all of it: the one with the fewest instances; of those the one with the least memory that is enough
2. the fewest GPUs of one backend that hold it together
3. one GPU, after unloading as few idle instances as needed
4. as many layers as one GPU holds, the rest in main memory
5. main memory only, after unloading as few idle instances as needed
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from registry.devices.compute_device import CPU, Device, Inventory, readable
from registry.devices.eviction import Tenant, evictions
from registry.models.memory_estimate import Estimate

FEWEST_LAYERS = 0.1  # of a model's layers; below that, transfers to the GPU cost more than it gains


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a model takes. Every device that holds a part of it needs compute buffers of its own."""

    estimate: Estimate
    layers: int

    @property
    def layered(self) -> int:
        """Bytes of the weights that lie with their layers."""
        return self.estimate.weights - sum(self.estimate.fixed.values())

    @property
    def on_one_gpu(self) -> int:
        """Bytes on the GPU that has all layers."""
        return self.layered + self.estimate.kv_cache + self.estimate.compute

    @property
    def in_main_memory(self) -> int:
        """Bytes in main memory, if all layers are on GPUs."""
        fixed = self.estimate.fixed.get(CPU, 0)
        return fixed + self.estimate.compute if fixed else 0


@dataclass(frozen=True, slots=True)
class Occupant:
    """A loaded or loading instance, and the bytes that it takes of each device ("cpu": of main memory)."""

    id: str
    memory: Mapping[str, int]
    idle_seconds: float
    evictable: bool


@dataclass(frozen=True, slots=True)
class Placement:
    """`layers`: on the GPUs; None: all of them. `evicted`: the ids of the instances to unload first."""

    devices: tuple[Device, ...]
    layers: int | None = None
    memory: Mapping[str, int] = field(default_factory=dict)  # bytes by device
    evicted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DoesNotFit:
    """`reason` says what is missing, human-readable."""

    reason: str


def place(
    need: MemoryNeed, inventory: Inventory, occupants: Sequence[Occupant], *, kept: float = 0.0
) -> Placement | DoesNotFit:
    """`kept`: the share of every device's memory that stays free. Tensors may be fixed in main memory only."""
    for placement in _candidates(need, inventory, occupants, kept):
        return placement
    most = max((gpu.usable(kept) for gpu in inventory.gpus), default=0)
    available = inventory.usable_main(kept)
    on_gpus = f"; the GPU with the most has {readable(most)}" if inventory.gpus else ""
    return DoesNotFit(
        f"it takes {readable(need.estimate.total)}, and main memory has {readable(available)} to spare{on_gpus}"
    )


def _candidates(
    need: MemoryNeed, inventory: Inventory, occupants: Sequence[Occupant], kept: float
) -> Iterator[Placement]:
    """The possible placements, the best first."""
    if need.in_main_memory <= inventory.usable_main(kept):
        yield from _on_one(need, inventory.gpus, occupants, kept)
        yield from _on_several(need, inventory.gpus, kept)
        yield from _after_evictions(need, inventory.gpus, occupants, kept)
    yield from _in_part(need, inventory, kept)
    yield from _in_main_memory(need, inventory, occupants, kept)


def _on_one(
    need: MemoryNeed, gpus: Sequence[Device], occupants: Sequence[Occupant], kept: float
) -> Iterator[Placement]:
    fitting = [gpu for gpu in gpus if need.on_one_gpu <= gpu.usable(kept)]
    for gpu in sorted(fitting, key=lambda gpu: (_instances_on(gpu, occupants), gpu.free, gpu.id)):
        yield Placement((gpu,), memory=_with_main_memory(need, {gpu.id: need.on_one_gpu}))


def _with_main_memory(need: MemoryNeed, on_gpus: dict[str, int]) -> dict[str, int]:
    return {**on_gpus, CPU: need.in_main_memory} if need.in_main_memory else on_gpus


def _on_several(need: MemoryNeed, gpus: Sequence[Device], kept: float) -> Iterator[Placement]:
    for group in _groups(gpus, kept):
        shares = _shares(need, {gpu.id: gpu.usable(kept) for gpu in group})
        if shares is not None:
            memory = _with_main_memory(need, shares)
            yield Placement(tuple(sorted(group, key=lambda gpu: gpu.id)), memory=memory)


def _groups(gpus: Sequence[Device], kept: float) -> Iterator[list[Device]]:
    """Of each backend the two, three, ... GPUs with the most usable memory: the fewest first."""
    backends = dict.fromkeys(gpu.backend for gpu in gpus)
    for count in range(2, len(gpus) + 1):
        for backend in backends:
            largest = sorted((gpu for gpu in gpus if gpu.backend == backend), key=lambda gpu: -gpu.usable(kept))
            if len(largest) >= count:
                yield largest[:count]


def _shares(need: MemoryNeed, usable: Mapping[str, int]) -> dict[str, int] | None:
    """Bytes by device, in proportion to its usable memory; None if they are too small together."""
    spare = {id: memory - need.estimate.compute for id, memory in usable.items()}
    to_split = need.layered + need.estimate.kv_cache
    if min(spare.values()) <= 0 or sum(spare.values()) < to_split:
        return None
    whole = sum(spare.values())
    return {id: -(-to_split * memory // whole) + need.estimate.compute for id, memory in spare.items()}  # rounded up


def _after_evictions(
    need: MemoryNeed, gpus: Sequence[Device], occupants: Sequence[Occupant], kept: float
) -> Iterator[Placement]:
    """On the GPU where the fewest instances must be unloaded, and those that were idle for longest."""
    found: list[tuple[int, float, Placement]] = []
    for gpu in gpus:
        tenants = _tenants(occupants, gpu.id)
        going = evictions(need.on_one_gpu, gpu.usable(kept), tenants)
        if going is not None and need.on_one_gpu <= gpu.total * (1 - kept):
            idle = max((tenant.idle_seconds for tenant in tenants if tenant.id in going), default=0.0)
            memory = _with_main_memory(need, {gpu.id: need.on_one_gpu})
            placement = Placement((gpu,), memory=memory, evicted=tuple(going))
            found.append((len(going), -idle, placement))
    yield from (placement for _, _, placement in sorted(found, key=lambda entry: entry[:2]))


def _in_part(need: MemoryNeed, inventory: Inventory, kept: float) -> Iterator[Placement]:
    """Layers on the GPU with the most usable memory, the rest in main memory."""
    if not inventory.gpus or not need.layers:
        return
    gpu = max(sorted(inventory.gpus, key=lambda gpu: gpu.id), key=lambda gpu: gpu.usable(kept))
    layer = max(1, (need.layered + need.estimate.kv_cache) // (need.layers + 1))  # the output counts as one
    layers = min(need.layers, (gpu.usable(kept) - need.estimate.compute) // layer)
    if layers < max(1, FEWEST_LAYERS * need.layers):
        return
    on_gpu = layers * layer + need.estimate.compute
    rest = need.estimate.total - layers * layer
    if rest <= inventory.usable_main(kept):
        yield Placement((gpu,), layers, {gpu.id: on_gpu, CPU: rest})


def _in_main_memory(
    need: MemoryNeed, inventory: Inventory, occupants: Sequence[Occupant], kept: float
) -> Iterator[Placement]:
    going = evictions(need.estimate.total, inventory.usable_main(kept), _tenants(occupants, CPU))
    if going is not None:
        yield Placement((), 0, {CPU: need.estimate.total}, tuple(going))


def _tenants(occupants: Sequence[Occupant], device: str) -> list[Tenant]:
    return [
        Tenant(each.id, each.memory[device], each.idle_seconds, each.evictable)
        for each in occupants
        if device in each.memory
    ]


def _instances_on(gpu: Device, occupants: Sequence[Occupant]) -> int:
    return sum(gpu.id in each.memory for each in occupants)
