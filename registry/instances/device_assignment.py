"""From a plan and the inventory to the devices on which the instance starts. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from atelier.errors import InsufficientMemory
from atelier.settings import Load
from atelier.tensor_placement import gpus_named
from registry.devices.compute_device import CPU, Inventory, pin_name, split_of
from registry.devices.manual_placement import (
    DeviceChoice,
    ManualPlacement,
    MemoryLayout,
    choice_of,
    fit_choice,
    gpu_layer_count,
    lay_out,
    usable_memory,
)
from registry.devices.pinning import pin
from registry.devices.placement import Occupant, Placement, place
from registry.instances.instance_store import StoredPlacement
from registry.instances.launch_plan import LaunchPlan

REMEDIES = (
    "beside the models that are loaded and in use. Unload one (atelier ps, atelier unload), load this one with a "
    "shorter context (-c), fewer sequences (--parallel) or a smaller KV cache (--kv-type q8_0), or set "
    "ATELIER_GUARDRAIL."
)


@dataclass(frozen=True, slots=True)
class Assignment:
    """The plan with its devices, and the ids of the instances that must be unloaded first."""

    plan: LaunchPlan
    evicted: Sequence[str]


def chooses_devices(load: Load) -> bool:
    """Whether the registry chooses: neither devices, nor the number of layers, nor their split are requested."""
    split = bool(load.tensor_split) or load.split_mode != "layer" or bool(gpus_named(load))
    return load.device == "auto" and load.gpu_layers is None and not split


def assign_devices(
    plan: LaunchPlan, inventory: Inventory, occupants: Sequence[Occupant], kept: float, cores: Collection[int]
) -> Assignment:
    """`kept`: the share of every device's memory that stays free.

    Raises InsufficientMemory if unloading cannot help, LoadFailed if a named device does not exist.
    """
    if chooses_devices(plan.load):
        return _on_best_devices(plan, inventory, occupants, kept, cores)
    choice = choice_of(plan.load, inventory.gpus)
    return _on_chosen_devices(plan, choice, inventory, occupants, kept, cores) if choice else Assignment(plan, ())


def counted_plan(plan: LaunchPlan, inventory: Inventory) -> LaunchPlan:
    """The plan with the memory that it takes on the devices requested, without a check that it fits.

    Raises LoadFailed if a named device does not exist.
    """
    choice = None if chooses_devices(plan.load) else choice_of(plan.load, inventory.gpus)
    if choice is None or plan.need is None:
        return plan
    return replace(plan, placed=lay_out(plan.need, choice, usable_memory(inventory, 0.0)).memory)


def weights_in_main_memory(plan: LaunchPlan) -> int:
    """Bytes of the model's file that stay mapped: llama.cpp unmaps what it has copied to GPUs."""
    assert plan.need is not None
    count = plan.need.layers + 1
    on_gpus = 0 if plan.placed.keys() <= {CPU} else gpu_layer_count(plan.need, plan.load.gpu_layers)
    return plan.need.layered * (count - on_gpus) // count + plan.need.estimate.fixed.get(CPU, 0)


def stored_placement(plan: LaunchPlan) -> StoredPlacement | None:
    """For the instance's row; None while it is unknown."""
    if not plan.placed:
        return None
    load = plan.load
    return StoredPlacement(
        device=load.device, gpu_layers=load.gpu_layers, tensor_split=load.tensor_split, memory=dict(plan.placed)
    )


def with_placement(plan: LaunchPlan, stored: StoredPlacement | None, cores: Collection[int]) -> LaunchPlan:
    """The plan on the devices where it was placed by an earlier registry."""
    if stored is None:
        return plan
    load = replace(
        plan.load, device=stored["device"], gpu_layers=stored["gpu_layers"], tensor_split=stored["tensor_split"]
    )
    return _placed(plan, load, stored["memory"], cores)


def _on_best_devices(
    plan: LaunchPlan, inventory: Inventory, occupants: Sequence[Occupant], kept: float, cores: Collection[int]
) -> Assignment:
    assert plan.need is not None
    placement = place(plan.need, inventory, occupants, kept=kept)
    if not isinstance(placement, Placement):
        raise InsufficientMemory(f"{plan.model.key} does not fit in memory: {placement.reason}, {REMEDIES}")
    if not inventory.gpus:
        return Assignment(replace(plan, placed=placement.memory), placement.evicted)
    load = replace(
        plan.load,
        device=pin_name(placement.devices),
        gpu_layers=placement.layers,
        tensor_split=split_of(placement.devices, placement.memory),
    )
    return Assignment(_placed(plan, load, placement.memory, cores), placement.evicted)


def _on_chosen_devices(
    plan: LaunchPlan,
    choice: DeviceChoice,
    inventory: Inventory,
    occupants: Sequence[Occupant],
    kept: float,
    cores: Collection[int],
) -> Assignment:
    assert plan.need is not None
    found = fit_choice(plan.need, choice, inventory, occupants, kept=kept)
    if not isinstance(found, ManualPlacement):
        raise InsufficientMemory(
            f"{plan.model.key} does not fit on the devices requested: {found.reason}, {REMEDIES} Or choose another "
            "device (--device), or fewer layers for the device that lacks memory (--gpu, --tensor-split)."
        )
    load = _completed(plan.load, choice, found.layout)
    return Assignment(_placed(plan, load, found.layout.memory, cores), found.evicted)


def _completed(load: Load, choice: DeviceChoice, layout: MemoryLayout) -> Load:
    """The settings with what was left open: the devices that "auto" means, and how many layers each of them takes."""
    if load.device == "auto" and choice.devices:
        load = replace(load, device=pin_name(choice.devices))
    if len(choice.devices) > 1 and not choice.split:
        load = replace(load, tensor_split=[float(layers) for layers in layout.layers])
    return load


def _placed(plan: LaunchPlan, load: Load, memory: Mapping[str, int], cores: Collection[int]) -> LaunchPlan:
    return replace(plan, load=load, pin=pin(load, cores), placed=memory)
