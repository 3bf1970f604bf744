"""Loads instances: for requests, for operators, for a model's replicas, and again after a restart of the registry."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from atelier.errors import InvalidRequest, ModelNotFound, Unavailable
from atelier.json_types import Json
from atelier.names import check_identifier
from registry.instances.device_assignment import with_placement
from registry.instances.instance_record import Instance, InstanceState
from registry.instances.instance_set import InstanceSet
from registry.instances.instance_store import StoredInstance
from registry.instances.instance_supervisor import Supervisor
from registry.instances.launch_plan import LaunchPlan, LaunchPlanner, LaunchRules
from registry.instances.launcher import WorkerProcess
from registry.instances.launches import RunningWorker, running_worker
from registry.instances.load_request import PresetLayers
from registry.models.model_catalogue import ModelCatalogue
from registry.models.model_record import Model


class InstanceLoader:
    """Decides which supervisor serves a load, and starts it. Decides without awaiting, so that callers coalesce."""

    def __init__(
        self,
        catalogue: ModelCatalogue,
        planner: LaunchPlanner,
        instances: InstanceSet,
        supervise: Callable[[LaunchPlan, RunningWorker | None], Supervisor],
        rules: LaunchRules,
    ) -> None:
        """`supervise` starts an instance, with an adopted worker if there is one."""
        self._catalogue = catalogue
        self._planner = planner
        self._instances = instances
        self._supervise = supervise
        self._rules = rules

    async def ensure_ready(self, name: str, ttl: float | None, requested: Json) -> Instance:
        """A ready instance of the model of this key, or the instance of this id.

        An instance that is loading is waited for. If there is none, or it failed, one is started: with the load
        settings `requested`, unloaded after `ttl` seconds of idleness (negative: never; None: the configured time).
        Raises ModelNotFound, InsufficientMemory, InvalidRequest, which names the setting, or the error of the load.
        """
        if requested.get("lora"):  # finding adapter files awaits, and another caller could start a second instance
            raise InvalidRequest("lora: adapters cannot be loaded by a request; load them explicitly.", param="lora")
        while True:
            supervisor = self._instances.find(name) or self._start_on_demand(name, ttl, requested)
            if supervisor.state is InstanceState.STOPPING:
                await self._instances.remove(supervisor)
            elif supervisor.state is InstanceState.FAILED:
                await self._instances.remove(supervisor)
                if self._instances.get(supervisor.plan.instance_id) is None:
                    self._start(self._planner.retry_plan(supervisor.asked, requested))
            elif supervisor.state is InstanceState.STALLED:
                return await self._recovered(supervisor)
            else:
                return await supervisor.ready()

    async def create(
        self, model_key: str, identifier: str | None, requested: Json, preset: str | None, ttl: float | None
    ) -> Instance:
        """One more instance of a model, once it is ready.

        It is unloaded after `ttl` seconds of idleness, or never. Raises InvalidRequest, which names the setting,
        AlreadyExists, ModelNotFound, PresetNotFound, or the error of the load.
        """
        model = self._catalogue.require(model_key)
        presets = self._planner.preset_layers(model, preset)
        plan = self._planner.plan(model, "", requested, presets, on_demand=False)
        plan = await self._planner.with_adapters(plan)
        if identifier is not None:
            check_identifier(identifier)
        await self._clear_failed(model, identifier)
        plan = replace(plan, instance_id=self._instances.new_id(model, identifier), ttl=_ttl(ttl, None))
        return await self._start(plan).ready()

    async def resume(self, record: StoredInstance, process: WorkerProcess | None) -> Supervisor:
        """Continue an instance of an earlier registry: with its worker, or with a new one.

        Raises ModelNotFound or InvalidRequest if it can no longer run.
        """
        model = self._catalogue.require(record.model_key)
        presets = PresetLayers.from_json(record.presets)
        plan = self._planner.plan(model, record.id, record.settings, presets, on_demand=record.on_demand)
        plan = replace(await self._planner.with_adapters(plan), ttl=record.ttl)
        if process is None:
            return self._start(plan)
        return self._start(with_placement(plan, record.placement, self._rules.cores), running_worker(record, process))

    def start_replica(self, key: str, *, needed: bool) -> Supervisor:
        """One more instance, as a request would load it; unless `needed`, into free memory only."""
        model = self._catalogue.require(key)
        plan = self._default_plan(model, {})
        return self._start(replace(plan, ttl=self._rules.idle_ttl, extra=not needed))

    def _start_on_demand(self, name: str, ttl: float | None, requested: Json) -> Supervisor:
        model = self._catalogue.get(name)
        if model is None:
            raise ModelNotFound(f'There is no model or instance "{name[:200]}".', param="model")
        plan = self._default_plan(model, requested)
        return self._start(replace(plan, ttl=_ttl(ttl, self._rules.idle_ttl)))

    def _default_plan(self, model: Model, requested: Json) -> LaunchPlan:
        """Under the next free id, with the model's default preset."""
        presets = self._planner.preset_layers(model, None)
        return self._planner.plan(model, self._instances.new_id(model), requested, presets, on_demand=True)

    def _start(self, plan: LaunchPlan, adopted: RunningWorker | None = None) -> Supervisor:
        self._instances.check_open()
        supervisor = self._supervise(plan, adopted)
        self._instances.add(supervisor)
        return supervisor

    async def _clear_failed(self, model: Model, identifier: str | None) -> None:
        """A failed instance leaves its name to the next load."""
        for supervisor in self._instances:
            named = supervisor.plan.instance_id == identifier or supervisor.plan.model.key == model.key
            if named and supervisor.state is InstanceState.FAILED:
                await self._instances.remove(supervisor)

    async def _recovered(self, supervisor: Supervisor) -> Instance:
        try:
            async with asyncio.timeout(self._rules.stall_timeout):
                return await supervisor.ready()
        except TimeoutError:
            raise Unavailable(f"{supervisor.plan.instance_id} is loaded but does not respond.") from None


def _ttl(requested: float | None, default: float | None) -> float | None:
    """Seconds of idleness before unloading; None: never, which is requested by a negative number."""
    if requested is None:
        return default
    return requested if requested >= 0 else None
