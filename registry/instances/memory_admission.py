"""Admits instances before they are launched: chooses devices, unloads idle models, waits for busy ones."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog

from atelier.errors import InsufficientMemory
from registry.devices.compute_device import CPU, Inventory
from registry.devices.device_probe import DeviceProbe
from registry.devices.memory_accounting import (
    Cache,
    Resident,
    caches_to_release,
    committed_memory,
    exclusive_memory,
    guardrail,
    minus_granted,
    minus_loaded,
    not_yet_taken,
    plus_caches,
    shared_pages,
    sized_cache,
)
from registry.devices.placement import Occupant
from registry.instances.device_assignment import (
    Assignment,
    assign_devices,
    chooses_devices,
    counted_plan,
    weights_in_main_memory,
)
from registry.instances.instance_record import TO_COME, InstanceState
from registry.instances.instance_set import InstanceSet
from registry.instances.instance_supervisor import Supervisor
from registry.instances.launch_plan import LaunchPlan, LaunchRules

RETRY_SECONDS = 0.1  # between two checks whether a busy model has become idle
MIB = 2**20
IDLE_SECONDS = 2.0  # after which an instance counts as idle: a worker's status may be a second old

_log = structlog.get_logger(__name__)


class MemoryAdmission:
    """Grants memory to one launch at a time, first come, first served."""

    def __init__(self, rules: LaunchRules, instances: InstanceSet, probe: DeviceProbe) -> None:
        self._rules = rules
        self._instances = instances
        self._probe = probe
        self._turn = asyncio.Lock()

    async def inventory(self) -> Inventory:
        """The devices and their free memory now."""
        return await self._probe.inventory(self._devices_in_use)

    async def admit(self, plan: LaunchPlan) -> LaunchPlan:
        """The plan with its devices, after unloading idle instances if memory is short.

        Waits for busy instances that could make way. Memory that another launch was granted, and has not taken yet,
        is not granted again. Raises InsufficientMemory if unloading cannot help or the wait times out, LoadFailed
        if the plan names a device that does not exist.
        """
        if plan.need is None:
            return plan
        if self._rules.guardrail == "off":
            return await self._unchecked(plan)
        until = asyncio.get_running_loop().time() + (0 if plan.extra else self._rules.room_timeout)
        async with self._turn:
            self._probe.forget()
            while True:
                inventory = await self.inventory()
                if (assignment := self._assignment(plan, inventory, until)) is not None:
                    if not assignment.evicted:
                        self._grant(plan)
                        return await self._with_cache(assignment.plan, inventory)
                    await self._evict(assignment.evicted[0], plan)  # one by one: the next may get work meanwhile
                else:
                    await asyncio.sleep(RETRY_SECONDS)

    async def _unchecked(self, plan: LaunchPlan) -> LaunchPlan:
        """The plan, with the memory that it takes if its devices were requested; otherwise llama.cpp chooses them."""
        inventory = await self.inventory()
        plan = plan if chooses_devices(plan.load) else counted_plan(plan, inventory)
        return _sized(plan, plus_caches(inventory, self._caches(plan)).memory_available, self._caches(plan))

    async def _with_cache(self, plan: LaunchPlan, inventory: Inventory) -> LaunchPlan:
        """The plan with the size of its cache, after other caches have made way for the model."""
        caches, share, needed = self._caches(plan), self._kept[0], plan.placed.get(CPU, 0)
        missing = needed - self._free(plan, inventory).usable_main(share)
        for instance_id, size in caches_to_release(missing, caches).items():
            if (supervisor := self._instances.get(instance_id)) is not None:
                await supervisor.worker.release_cache(size)
        free = self._free(plan, plus_caches(inventory, caches)).usable_main(share)
        return _sized(plan, free - needed, caches)

    @property
    def _kept(self) -> tuple[float, int]:
        """The share of every device's memory that stays free, and bytes of main memory."""
        return guardrail(self._rules.guardrail, self._rules.guardrail_bytes)

    def _others(self, plan: LaunchPlan) -> list[Supervisor]:
        return [each for each in self._instances if each.plan.instance_id != plan.instance_id]

    def _caches(self, plan: LaunchPlan) -> list[Cache]:
        """Of other instances, without those whose size an operator set."""
        now = asyncio.get_running_loop().time()
        return [
            Cache(
                each.plan.instance_id,
                each.instance.cache_ram_bytes,
                max(each.instance.cache_ram_bytes, (each.plan.load.cache_ram or 0) * MIB),
                each.worker.idle_seconds(now),
            )
            for each in self._others(plan)
            if each.plan.cache_sized and _takes_memory(each)
        ]

    def _free(self, plan: LaunchPlan, inventory: Inventory) -> Inventory:
        """The inventory without what other instances were granted, or may take."""
        others = self._others(plan)
        granted = [
            not_yet_taken(each.plan.placed, each.instance.load_progress)
            for each in others
            if each.admitted and each.state in TO_COME
        ]
        loaded = [each for each in others if _takes_memory(each)]
        return _minus_loaded(plan, minus_granted(inventory, granted, self._kept[1]), loaded)

    def _assignment(self, plan: LaunchPlan, inventory: Inventory, until: float) -> Assignment | None:
        """What is possible now; None if waiting may help. Raises InsufficientMemory if it cannot."""
        others, share = self._others(plan), self._kept[0]
        free = self._free(plan, plus_caches(inventory, self._caches(plan)))
        try:
            return assign_devices(
                plan, free, [self._occupant(each, plan, free) for each in others], share, self._rules.cores
            )
        except InsufficientMemory:
            eventually = [self._occupant(each, plan, free, eventually=True) for each in others]
            assign_devices(plan, free, eventually, share, self._rules.cores)  # raises if waiting cannot help
            if asyncio.get_running_loop().time() >= until:
                raise
            return None

    def _occupant(
        self, supervisor: Supervisor, plan: LaunchPlan, inventory: Inventory, *, eventually: bool = False
    ) -> Occupant:
        """The instance as an obstacle to the plan. `eventually`: as if its work and its unloading were finished."""
        idle = supervisor.worker.idle_seconds(asyncio.get_running_loop().time())
        leaving = self._instances.is_leaving(supervisor)
        replaceable = supervisor.plan.on_demand and not plan.extra and not self._instances.is_kept_replica(supervisor)
        evictable = replaceable and idle >= IDLE_SECONDS and not leaving
        if eventually:
            evictable = replaceable or leaving
        memory = exclusive_memory(inventory, supervisor.plan.placed) if _takes_memory(supervisor) else {}
        return Occupant(supervisor.plan.instance_id, memory, idle, evictable)

    def _devices_in_use(self) -> set[str]:
        """The devices that instances have, or were granted."""
        users = [each for each in self._instances if each.worker.running is not None or _takes_memory(each)]
        return {device for each in users for device in each.plan.placed}

    async def _evict(self, instance_id: str, plan: LaunchPlan) -> None:
        if (supervisor := self._instances.get(instance_id)) is not None:
            _log.info("instance_evicted", instance=instance_id, for_=plan.instance_id)
            await self._instances.evict(supervisor)
            self._probe.forget()

    def _grant(self, plan: LaunchPlan) -> None:
        if (supervisor := self._instances.get(plan.instance_id)) is not None:
            supervisor.admitted = True


def _minus_loaded(plan: LaunchPlan, inventory: Inventory, loaded: Sequence[Supervisor]) -> Inventory:
    """No more memory than loaded instances leave once they use all that they may.

    That concerns main memory, and GPUs whose drivers report only this process's use.
    """
    residents = [_resident(each.plan) for each in loaded if CPU in each.plan.placed]
    left = inventory.memory_total - committed_memory(residents) + shared_pages(residents, str(plan.model.path))
    inventory = replace(inventory, memory_available=max(0, min(inventory.memory_available, left)))
    return minus_loaded(inventory, [each.plan.placed for each in loaded])


def _sized(plan: LaunchPlan, free: int, caches: Sequence[Cache]) -> LaunchPlan:
    """The plan with the size of its cache, if that was left open. `free`: bytes of main memory beside its model."""
    if not plan.cache_sized:
        return plan
    return replace(plan, load=replace(plan.load, cache_ram=sized_cache(free, caches) // MIB))


def _resident(plan: LaunchPlan) -> Resident:
    return Resident(str(plan.model.path), weights_in_main_memory(plan), plan.placed.get(CPU, 0))


def _takes_memory(supervisor: Supervisor) -> bool:
    """Not while it waits to be admitted itself, and not after it has failed."""
    return supervisor.state is not InstanceState.FAILED and supervisor.admitted
