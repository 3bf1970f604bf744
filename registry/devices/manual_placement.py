"""Whether a model fits on the devices that its request names, and the instances to unload for it. Pure.

As llama.cpp lays a model out (load_tensors in its src/llama-model.cpp): the output counts as one more layer; the
last `gpu_layers` of all layers lie on the GPUs, each whole on one, in the devices' order and in the proportions of
`tensor_split`; the others lie in main memory.

Without a split, llama.cpp divides the layers by the memory that is free when the worker loads. Here they are divided
beforehand, by the layers that each device can hold, and the worker gets that split: it takes what it was granted,
also when it is launched again beside other instances.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from atelier.errors import LoadFailed
from atelier.settings import Load
from atelier.tensor_placement import gpus_named
from registry.devices.compute_device import CPU, Device, Inventory, ids_of, readable
from registry.devices.eviction import fewest_evictions
from registry.devices.memory_accounting import plus_freed
from registry.devices.placement import DoesNotFit, MemoryNeed, Occupant


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """The devices that a request selects. Without devices: main memory only."""

    devices: tuple[Device, ...]
    layers: int | None = None  # on them, the output included; None: all
    split: tuple[float, ...] = ()  # the devices' proportions; empty: by their usable memory
    offload_kv: bool = True  # the KV cache lies with its layers; otherwise in main memory


@dataclass(frozen=True, slots=True)
class MemoryLayout:
    """What lies where."""

    layers: tuple[int, ...]  # on each device of the choice
    memory: Mapping[str, int]  # bytes by device ("cpu": of main memory)


@dataclass(frozen=True, slots=True)
class ManualPlacement:
    """The layout once the instances of the ids in `evicted` are unloaded."""

    layout: MemoryLayout
    evicted: tuple[str, ...] = ()


def choice_of(load: Load, gpus: Sequence[Device]) -> DeviceChoice | None:
    """None if a GPU is named and none is known: its worker will report whether it sees the GPU.

    Raises LoadFailed if the one named, or the main GPU, is not among the known ones.
    """
    if load.device == CPU or load.gpu_layers == 0 or (load.device == "auto" and not gpus):
        _check_overrides(load, ())
        return DeviceChoice((), 0, offload_kv=load.offload_kv)
    if not gpus:
        return None
    devices = _used(_all_of_one_backend(gpus) if load.device == "auto" else _named(load.device, gpus))
    _check_overrides(load, devices)
    if load.split_mode == "none":
        return DeviceChoice(devices, load.gpu_layers, _on_main_gpu(load, devices), load.offload_kv)
    split = (*load.tensor_split, *([0.0] * len(devices)))[: len(devices)]
    return DeviceChoice(devices, load.gpu_layers, split if any(split) else (), load.offload_kv)


def _check_overrides(load: Load, devices: Sequence[Device]) -> None:
    """Raises LoadFailed if tensors are to lie on a device that the model does not use."""
    if unused := gpus_named(load) - {device.id for device in devices}:
        used = ", ".join([CPU, *(device.id for device in devices)])
        raise LoadFailed(
            f"override_tensor names {', '.join(sorted(unused))}, and the model uses {used}: choose one of these, or "
            "name the devices with device.",
            param="override_tensor",
        )


def _on_main_gpu(load: Load, devices: Sequence[Device]) -> tuple[float, ...]:
    """All layers on one device; the others stay visible, as llama.cpp counts `main_gpu` among all of them."""
    if load.main_gpu >= len(devices):
        listed = ", ".join(f"{position} ({device.id})" for position, device in enumerate(devices))
        raise LoadFailed(f"There is no GPU {load.main_gpu}. main_gpu is one of {listed}.", param="main_gpu")
    return tuple(float(position == load.main_gpu) for position in range(len(devices)))


def fit_choice(
    need: MemoryNeed, choice: DeviceChoice, inventory: Inventory, occupants: Sequence[Occupant], *, kept: float = 0.0
) -> ManualPlacement | DoesNotFit:
    """`kept`: the share of every device's memory that stays free."""

    def usable(going: Sequence[Occupant]) -> dict[str, int]:
        return usable_memory(plus_freed(inventory, [each.memory for each in going]), kept)

    going = fewest_evictions(occupants, lambda going: not _lacking(need, choice, usable(going)))
    if going is None:
        evictable = [each for each in occupants if each.evictable]
        return DoesNotFit(_lack_message(_lacking(need, choice, usable(evictable))))
    return ManualPlacement(lay_out(need, choice, usable(going)), tuple(each.id for each in going))


def lay_out(need: MemoryNeed, choice: DeviceChoice, usable: Mapping[str, int]) -> MemoryLayout:
    """`usable`: bytes by device that may be granted."""
    estimate = need.estimate
    spread = need.layered + (estimate.kv_cache if choice.offload_kv else 0)
    layer = max(1, -(-spread // (need.layers + 1)))  # rounded up
    on_gpus = gpu_layer_count(need, choice.layers)
    fixed = [estimate.fixed.get(device.id, 0) for device in choice.devices]
    capacity = [
        (usable[device.id] - estimate.compute - own) // layer for device, own in zip(choice.devices, fixed, strict=True)
    ]
    layers = split_layers(on_gpus, choice.split or _by_capacity(capacity))
    memory = {
        device.id: held * layer + own + estimate.compute
        for device, held, own in zip(choice.devices, layers, fixed, strict=True)
        if held or own
    }
    rest = max(0, spread - on_gpus * layer) + estimate.fixed.get(CPU, 0)
    rest += 0 if choice.offload_kv else estimate.kv_cache
    return MemoryLayout(tuple(layers), {**memory, CPU: rest + estimate.compute} if rest else memory)


def gpu_layer_count(need: MemoryNeed, requested: int | None) -> int:
    """How many of its layers lie on GPUs, the output included."""
    return need.layers + 1 if requested is None else min(requested, need.layers + 1)


def split_layers(count: int, shares: Sequence[float]) -> list[int]:
    """How many layers each device holds: layer n is on the first device whose cumulative share exceeds n."""
    parts = [share / max(shares) for share in shares]
    ends = [math.ceil(round(count * end / sum(parts), 6)) for end in accumulate(parts)]
    return [end - start for start, end in pairwise([0, *ends])]


def usable_memory(inventory: Inventory, kept: float) -> dict[str, int]:
    """Bytes by device that may be granted."""
    return {CPU: inventory.usable_main(kept), **{gpu.id: gpu.usable(kept) for gpu in inventory.gpus}}


def _named(name: str, gpus: Sequence[Device]) -> list[Device]:
    known = {gpu.id: gpu for gpu in gpus}
    wanted = ids_of(name)
    if missing := [id for id in wanted if id not in known]:
        raise LoadFailed(
            f"There is no device {', '.join(missing)}. llama.cpp sees: {', '.join(known)}. Choose one of these.",
            param="device",
        )
    return [known[id] for id in wanted]


def _all_of_one_backend(gpus: Sequence[Device]) -> list[Device]:
    """Several backends may see the same card, and a worker is pinned to devices of one backend."""
    first = _used(gpus)[0]
    return [gpu for gpu in gpus if gpu.backend == first.backend]


def _used(devices: Sequence[Device]) -> tuple[Device, ...]:
    """llama.cpp ignores integrated GPUs beside others."""
    return tuple(device for device in devices if not device.integrated) or tuple(devices)


def _by_capacity(capacity: Sequence[int]) -> list[int]:
    """By the layers that they can hold, which none then exceeds unless all together hold too few."""
    shares = [max(0, layers) for layers in capacity]
    return shares if any(shares) else [1] * len(capacity)


def _lacking(need: MemoryNeed, choice: DeviceChoice, usable: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """The devices with too little memory: the bytes missing, and the bytes that the model takes there."""
    memory = lay_out(need, choice, usable).memory
    return {id: (taken - usable[id], taken) for id, taken in memory.items() if taken > usable[id]}


def _lack_message(lacking: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(
        f"{'main memory' if id == CPU else id} lacks {readable(missing)} of the {readable(taken)} that it takes there"
        for id, (missing, taken) in lacking.items()
    )
