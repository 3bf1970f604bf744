"""Whether a model fits where someone said that it lies, and what has to go for it: pure.

As llama.cpp lays a model out (load_tensors in its src/llama-model.cpp): the output counts as one more layer; of all
of them the last `gpu_layers` lie on the GPUs, each whole on one, in the devices' order and by the shares that
`tensor_split` gives them; the others lie in main memory.

Where nobody gives shares, llama.cpp takes the memory that is free when the worker comes to it. Here they are settled
before, by the layers that each device has room for, and the worker is told: it takes what it was granted, also when
it is launched again beside others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from atelier.errors import LoadFailed
from atelier.settings import Load
from registry.devices.compute_device import CPU, Device, Inventory, ids_of, readable
from registry.devices.placement import Need, Occupant, Refused
from registry.instances.memory_accounting import fewest, freed


@dataclass(frozen=True, slots=True)
class Choice:
    """What someone said, and what follows from it. No devices: main memory alone."""

    devices: tuple[Device, ...]
    layers: int | None = None  # on them, the output among them; None: all
    split: tuple[float, ...] = ()  # the devices' shares; empty: by their room
    offload_kv: bool = True  # the KV cache lies with its layers; otherwise in main memory


@dataclass(frozen=True, slots=True)
class Layout:
    """What lies where."""

    layers: tuple[int, ...]  # on each device of the choice
    memory: Mapping[str, int]  # bytes by device ("cpu": of main memory)


@dataclass(frozen=True, slots=True)
class Fitting:
    """What lies where once the instances of these ids are gone."""

    layout: Layout
    evicted: tuple[str, ...] = ()


def choice_of(load: Load, gpus: Sequence[Device]) -> Choice | None:
    """None when it names a GPU where none is known: its worker will say whether it sees it.

    LoadFailed when it names one that is not among those that are known.
    """
    if load.device == CPU or load.gpu_layers == 0 or (load.device == "auto" and not gpus):
        return Choice((), 0, offload_kv=load.offload_kv)
    if not gpus:
        return None
    devices = _used(_all_of_one_backend(gpus) if load.device == "auto" else _named(load.device, gpus))
    split = (*load.tensor_split, *([0.0] * len(devices)))[: len(devices)]
    return Choice(devices, load.gpu_layers, split if any(split) else (), load.offload_kv)


def fit(
    need: Need, choice: Choice, inventory: Inventory, occupants: Sequence[Occupant], *, kept: float = 0.0
) -> Fitting | Refused:
    """`kept`: the share of every device's memory that stays free."""

    def rooms(going: Sequence[Occupant]) -> dict[str, int]:
        return rooms_of(freed(inventory, [each.memory for each in going]), kept)

    going = fewest(occupants, lambda going: not _lacking(need, choice, rooms(going)))
    if going is None:
        everyone = [each for each in occupants if each.evictable]
        return Refused(_in_words(_lacking(need, choice, rooms(everyone))))
    return Fitting(lay_out(need, choice, rooms(going)), tuple(each.id for each in going))


def lay_out(need: Need, choice: Choice, rooms: Mapping[str, int]) -> Layout:
    """`rooms`: bytes by device that may be given away."""
    estimate = need.estimate
    spread = estimate.weights + (estimate.kv_cache if choice.offload_kv else 0)
    layer = max(1, -(-spread // (need.layers + 1)))  # rounded up
    on_gpus = layers_on_gpus(need, choice.layers)
    usable = [(rooms[device.id] - estimate.compute) // layer for device in choice.devices]
    layers = split_layers(on_gpus, choice.split or _by_room(usable))
    memory = {
        device.id: held * layer + estimate.compute for device, held in zip(choice.devices, layers, strict=True) if held
    }
    rest = max(0, spread - on_gpus * layer) + (0 if choice.offload_kv else estimate.kv_cache)
    return Layout(tuple(layers), {**memory, CPU: rest + estimate.compute} if rest else memory)


def layers_on_gpus(need: Need, wanted: int | None) -> int:
    """How many of its layers, the output among them."""
    return need.layers + 1 if wanted is None else min(wanted, need.layers + 1)


def split_layers(count: int, shares: Sequence[float]) -> list[int]:
    """How many layers each device holds: the nth is on the first whose share, with those before, reaches beyond it."""
    parts = [share / max(shares) for share in shares]
    ends = [math.ceil(round(count * end / sum(parts), 6)) for end in accumulate(parts)]
    return [end - start for start, end in pairwise([0, *ends])]


def rooms_of(inventory: Inventory, kept: float) -> dict[str, int]:
    """Bytes by device that may be given away."""
    return {CPU: inventory.main_room(kept), **{gpu.id: gpu.room(kept) for gpu in inventory.gpus}}


def _named(name: str, gpus: Sequence[Device]) -> list[Device]:
    here = {gpu.id: gpu for gpu in gpus}
    wanted = ids_of(name)
    if missing := [id for id in wanted if id not in here]:
        raise LoadFailed(
            f"Device {', '.join(missing)} is not here. llama.cpp sees: {', '.join(here)}. Choose one of these.",
            param="device",
        )
    return [here[id] for id in wanted]


def _all_of_one_backend(gpus: Sequence[Device]) -> list[Device]:
    """One card may be seen by several backends; a worker is pinned to devices of one."""
    first = _used(gpus)[0]
    return [gpu for gpu in gpus if gpu.backend == first.backend]


def _used(devices: Sequence[Device]) -> tuple[Device, ...]:
    """llama.cpp leaves integrated GPUs alone beside others."""
    return tuple(device for device in devices if not device.integrated) or tuple(devices)


def _by_room(usable: Sequence[int]) -> list[int]:
    """By the layers that they have room for: then none gets more than that, unless all together have too little."""
    shares = [max(0, layers) for layers in usable]
    return shares if any(shares) else [1] * len(usable)


def _lacking(need: Need, choice: Choice, rooms: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """The devices that have too little: how much they lack, and how much the model takes there."""
    memory = lay_out(need, choice, rooms).memory
    return {id: (taken - rooms[id], taken) for id, taken in memory.items() if taken > rooms[id]}


def _in_words(lacking: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(
        f"{'main memory' if id == CPU else id} lacks {readable(missing)} of the {readable(taken)} that it takes there"
        for id, (missing, taken) in lacking.items()
    )
