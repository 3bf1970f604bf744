"""From a plan and what there is to the devices that the instance starts on: pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from atelier.errors import InsufficientMemory
from atelier.settings import Load
from registry.devices.compute_device import CPU, Inventory, pin_name, split_of
from registry.devices.manual_placement import Choice, Fitting, Layout, choice_of, fit, lay_out, layers_on_gpus, rooms_of
from registry.devices.placement import Occupant, Placed, place
from registry.instances.launch_plan import Plan
from registry.pinning import pin

REMEDIES = (
    "beside what is loaded and in use. Unload something (atelier ps, atelier unload), load it with a shorter context "
    "(-c), fewer sequences (--parallel) or a smaller KV cache (--kv-type q8_0); or set ATELIER_GUARDRAIL."
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The plan with its devices, and the ids of the instances that have to go first."""

    plan: Plan
    evicted: Sequence[str]


def chooses_devices(load: Load) -> bool:
    """Whether the registry may choose: nobody has said where, how many layers, or how they are split."""
    return load.device == "auto" and load.gpu_layers is None and not load.tensor_split


def placed_plan(
    plan: Plan, inventory: Inventory, occupants: Sequence[Occupant], kept: float, cores: Collection[int]
) -> Outcome:
    """`kept`: the share of every device's memory that stays free.

    InsufficientMemory when there is no room, whatever went; LoadFailed when a device that was named is not here.
    """
    if chooses_devices(plan.load):
        return _on_the_best(plan, inventory, occupants, kept, cores)
    choice = choice_of(plan.load, inventory.gpus)
    return _on_the_chosen(plan, choice, inventory, occupants, kept, cores) if choice else Outcome(plan, ())


def counted_plan(plan: Plan, inventory: Inventory) -> Plan:
    """The plan with what it takes where someone has put it, though nobody asks whether it fits; LoadFailed."""
    choice = None if chooses_devices(plan.load) else choice_of(plan.load, inventory.gpus)
    if choice is None or plan.need is None:
        return plan
    return replace(plan, placed=lay_out(plan.need, choice, rooms_of(inventory, 0.0)).memory)


def weights_in_main_memory(plan: Plan) -> int:
    """Bytes of the model's file that stay mapped: llama.cpp lets go of what it has put on GPUs."""
    assert plan.need is not None
    count = plan.need.layers + 1
    on_gpus = 0 if plan.placed.keys() <= {CPU} else layers_on_gpus(plan.need, plan.load.gpu_layers)
    return plan.need.estimate.weights * (count - on_gpus) // count


def _on_the_best(
    plan: Plan, inventory: Inventory, occupants: Sequence[Occupant], kept: float, cores: Collection[int]
) -> Outcome:
    assert plan.need is not None
    placed = place(plan.need, inventory, occupants, kept=kept)
    if not isinstance(placed, Placed):
        raise InsufficientMemory(f"There is no room for {plan.model.key}: {placed.reason}, {REMEDIES}")
    if not inventory.gpus:
        return Outcome(replace(plan, placed=placed.memory), placed.evicted)
    load = replace(
        plan.load,
        device=pin_name(placed.devices),
        gpu_layers=placed.layers,
        tensor_split=split_of(placed.devices, placed.memory),
    )
    return Outcome(replace(plan, load=load, pin=pin(load, cores), placed=placed.memory), placed.evicted)


def _on_the_chosen(
    plan: Plan,
    choice: Choice,
    inventory: Inventory,
    occupants: Sequence[Occupant],
    kept: float,
    cores: Collection[int],
) -> Outcome:
    assert plan.need is not None
    found = fit(plan.need, choice, inventory, occupants, kept=kept)
    if not isinstance(found, Fitting):
        raise InsufficientMemory(
            f"There is no room for {plan.model.key} where it was told to go: {found.reason}, {REMEDIES} Or load it "
            "on another device (--device), or with fewer layers where memory is lacking (--gpu, --tensor-split)."
        )
    load = _settled(plan.load, choice, found.layout)
    return Outcome(replace(plan, load=load, pin=pin(load, cores), placed=found.layout.memory), found.evicted)


def _settled(load: Load, choice: Choice, layout: Layout) -> Load:
    """The settings with what was left open: which devices "auto" means, and how many layers lie on each."""
    if load.device == "auto" and choice.devices:
        load = replace(load, device=pin_name(choice.devices))
    if len(choice.devices) > 1 and not choice.split:
        load = replace(load, tensor_split=[float(layers) for layers in layout.layers])
    return load


def placement_of(plan: Plan) -> dict[str, Any] | None:
    """Where the plan's memory lies, to be kept with its instance; None: nobody knows."""
    if not plan.placed:
        return None
    load = plan.load
    return {
        "device": load.device,
        "gpu_layers": load.gpu_layers,
        "tensor_split": load.tensor_split,
        "memory": dict(plan.placed),
    }


def replaced(plan: Plan, placement: dict[str, Any] | None, cores: Collection[int]) -> Plan:
    """The plan where it was put earlier."""
    if placement is None:
        return plan
    load = replace(plan.load, **{name: placement[name] for name in ("device", "gpu_layers", "tensor_split")})
    return replace(plan, load=load, pin=pin(load, cores), placed=placement["memory"])
