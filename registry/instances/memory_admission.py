"""Makes room for instances before they are launched: devices chosen, idle models unloaded, busy ones waited for."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace

import structlog

from atelier.errors import InsufficientMemory
from registry.devices.compute_device import CPU, Inventory
from registry.devices.device_probe import Probe
from registry.devices.placement import Occupant
from registry.instances.device_assignment import (
    Outcome,
    chooses_devices,
    counted_plan,
    placed_plan,
    weights_in_main_memory,
)
from registry.instances.instance_record import TO_COME, State
from registry.instances.instance_supervisor import Supervisor
from registry.instances.launch_plan import Plan, Rules
from registry.instances.memory_accounting import (
    Resident,
    committed,
    guardrail,
    reserved,
    shared_pages,
    still_to_come,
    uncommitted,
    without,
)

LOOK_SECONDS = 0.1  # between two looks whether a busy model has become idle
SURE_SECONDS = 2.0  # of idleness: a worker's word may be a second old

_log = structlog.get_logger(__name__)


class Housing:
    """Grants memory to one launch at a time, in the order of their coming. The pool's, which owns the instances."""

    def __init__(
        self,
        rules: Rules,
        supervisors: Callable[[], Iterable[Supervisor]],
        leaving: Callable[[], Collection[Supervisor]],
        remove: Callable[[Supervisor], Awaitable[None]],
        held: Callable[[Supervisor], bool],
        probe: Probe,
    ) -> None:
        """`leaving`: those that are being unloaded. `remove`: unload one, with the usual grace.

        `held`: whether its model shall have it, whoever else needs room.
        """
        self._rules = rules
        self._supervisors = supervisors
        self._leaving = leaving
        self._remove = remove
        self._held = held
        self._probe = probe
        self._turn = asyncio.Lock()

    async def inventory(self) -> Inventory:
        """What there is, as it is now."""
        return await self._probe.inventory(self._in_use)

    async def make_room(self, plan: Plan) -> Plan:
        """The plan with its devices, after idle instances were unloaded if memory is short.

        What busy models could make is waited for; InsufficientMemory when nothing would help, or it takes too long.
        What another launch was granted, and does not take yet, is not granted again. LoadFailed when it is to run on
        a device that is not here.
        """
        if plan.need is None:
            return plan
        if self._rules.guardrail == "off":
            return await self._unasked(plan)
        until = asyncio.get_running_loop().time() + (0 if plan.extra else self._rules.room_timeout)
        async with self._turn:
            self._probe.forget()
            while True:
                inventory = await self.inventory()
                if (outcome := self._outcome(plan, inventory, until)) is not None:
                    if not outcome.evicted:
                        self._grant(plan)
                        return outcome.plan
                    await self._evict(outcome.evicted[0], plan)  # one by one: meanwhile the next may have got work
                else:
                    await asyncio.sleep(LOOK_SECONDS)

    async def _unasked(self, plan: Plan) -> Plan:
        """The plan, on devices that llama.cpp chooses, or someone has: then with what it will take of them."""
        return plan if chooses_devices(plan.load) else counted_plan(plan, await self.inventory())

    def _outcome(self, plan: Plan, inventory: Inventory, until: float) -> Outcome | None:
        """What is possible now; None when it is to be waited for; InsufficientMemory when that is of no use."""
        others = [each for each in self._supervisors() if each.plan.instance_id != plan.instance_id]
        coming = [
            still_to_come(each.plan.placed, each.instance.load_progress)
            for each in others
            if each.has_room and each.state in TO_COME
        ]
        share, kept = guardrail(self._rules.guardrail, self._rules.guardrail_bytes)
        loaded = [each for each in others if _takes_memory(each)]
        there = self._uncommitted(plan, without(inventory, coming, kept), loaded)
        try:
            return placed_plan(
                plan, there, [self._occupant(each, plan, there) for each in others], share, self._rules.cores
            )
        except InsufficientMemory:
            in_time = [self._occupant(each, plan, there, in_time=True) for each in others]
            placed_plan(plan, there, in_time, share, self._rules.cores)  # raises when waiting would not help
            if asyncio.get_running_loop().time() >= until:
                raise
            return None

    def _uncommitted(self, plan: Plan, there: Inventory, loaded: Sequence[Supervisor]) -> Inventory:
        """No more memory than is left when everything that is loaded has what it may come to use.

        So for main memory, and for GPUs that do not tell what other processes have of them.
        """
        residents = [_resident(each.plan) for each in loaded if CPU in each.plan.placed]
        left = there.memory_total - committed(residents) + shared_pages(residents, str(plan.model.path))
        there = replace(there, memory_available=max(0, min(there.memory_available, left)))
        return uncommitted(there, [each.plan.placed for each in loaded])

    def _occupant(self, supervisor: Supervisor, plan: Plan, there: Inventory, *, in_time: bool = False) -> Occupant:
        """As the plan finds it. `in_time`: as if it had nothing to do, or were gone already if it is on its way."""
        idle = supervisor.idle_seconds(asyncio.get_running_loop().time())
        leaving = supervisor in self._leaving()
        may_go = supervisor.plan.on_demand and not plan.extra and not self._held(supervisor)
        evictable = may_go and idle >= SURE_SECONDS and not leaving
        if in_time:
            evictable = may_go or leaving
        memory = reserved(there, supervisor.plan.placed) if _takes_memory(supervisor) else {}
        return Occupant(supervisor.plan.instance_id, memory, idle, evictable)

    def _in_use(self) -> set[str]:
        """The devices that instances have, or were granted."""
        having = [each for each in self._supervisors() if each.computes or _takes_memory(each)]
        return {device for each in having for device in each.plan.placed}

    async def _evict(self, instance_id: str, plan: Plan) -> None:
        for supervisor in self._supervisors():
            if supervisor.plan.instance_id == instance_id:
                _log.info("instance_evicted", instance=instance_id, for_=plan.instance_id)
                await self._remove(supervisor)
                self._probe.forget()
                return

    def _grant(self, plan: Plan) -> None:
        for supervisor in self._supervisors():
            if supervisor.plan.instance_id == plan.instance_id:
                supervisor.has_room = True


def _resident(plan: Plan) -> Resident:
    return Resident(str(plan.model.path), weights_in_main_memory(plan), plan.placed.get(CPU, 0))


def _takes_memory(supervisor: Supervisor) -> bool:
    """Not while it waits for room itself, and not after it was given up."""
    return supervisor.state is not State.FAILED and supervisor.has_room
