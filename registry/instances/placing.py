"""From a plan and what there is to the devices that the instance starts on: pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from atelier.errors import InsufficientMemory
from atelier.settings import Load
from registry.devices.device import CPU, Inventory, pin_name, split_of
from registry.devices.placement import Occupant, Placed, place
from registry.instances.plan import Plan
from registry.pinning import pin


@dataclass(frozen=True, slots=True)
class Outcome:
    """The plan with its devices, and the ids of the instances that have to go first."""

    plan: Plan
    evicted: Sequence[str]


def chooses_devices(load: Load) -> bool:
    """Whether the registry may choose: nobody has said where, how many layers, or how they are split."""
    return load.device == "auto" and load.gpu_layers is None and not load.tensor_split


def in_main_memory(plan: Plan) -> bool:
    """Whether someone has said that the model lies there."""
    return plan.load.device == CPU or plan.load.gpu_layers == 0


def placed_plan(
    plan: Plan, inventory: Inventory, occupants: Sequence[Occupant], kept: float, cores: Collection[int]
) -> Outcome:
    """InsufficientMemory when there is no room, whatever went. `kept`: the share of memory that stays free."""
    assert plan.need is not None
    free_choice = bool(inventory.gpus) and chooses_devices(plan.load)
    where = inventory if free_choice else replace(inventory, gpus=())
    placed = place(plan.need, where, occupants, kept=kept)
    if not isinstance(placed, Placed):
        raise InsufficientMemory(
            f"There is no room for {plan.model.key}: {placed.reason}, beside what is loaded and in use. Unload "
            "something (atelier ps, atelier unload), load it with a shorter context (-c), fewer sequences (--parallel) "
            "or a smaller KV cache (--kv-type q8_0); or set ATELIER_GUARDRAIL."
        )
    if not free_choice:
        return Outcome(replace(plan, placed=placed.memory), placed.evicted)
    load = replace(
        plan.load,
        device=pin_name(placed.devices),
        gpu_layers=placed.layers,
        tensor_split=split_of(placed.devices, placed.memory),
    )
    return Outcome(replace(plan, load=load, pin=pin(load, cores), placed=placed.memory), placed.evicted)


def placement_of(plan: Plan) -> dict[str, Any] | None:
    """What was chosen for the plan, to be kept with its instance; None: nothing was."""
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
    """The plan with what was chosen for it earlier."""
    if placement is None:
        return plan
    load = replace(plan.load, **{name: placement[name] for name in ("device", "gpu_layers", "tensor_split")})
    return replace(plan, load=load, pin=pin(load, cores), placed=placement["memory"])
