"""All instances: ensured, created, unloaded, adopted, drained."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import structlog

from atelier.errors import (
    AlreadyExists,
    AtelierError,
    Conflict,
    Draining,
    InstanceNotFound,
    InvalidRequest,
    ModelNotFound,
    Unavailable,
)
from atelier.names import check_identifier, numbered_id
from registry.devices.compute_device import Inventory
from registry.devices.device_probe import Probe
from registry.feed import Feed
from registry.instances.core_shares import CoreShares
from registry.instances.device_assignment import replaced
from registry.instances.instance_choice import choose
from registry.instances.instance_record import Instance, State
from registry.instances.instance_store import InstanceRecord, InstanceStore
from registry.instances.instance_supervisor import Supervisor
from registry.instances.launch_plan import Plan, Rules
from registry.instances.launcher import Launcher, WorkerProcess
from registry.instances.load_request import need_of, resolve_load
from registry.instances.memory_admission import Housing
from registry.instances.preset_layers import PresetLayers
from registry.models.adapter_files import AdapterFolder
from registry.models.model_catalogue import Catalogue
from registry.models.model_record import Model
from registry.pinning import pin
from registry.presets.preset_catalogue import Presets

KILL_AFTER_SECONDS = 10.0  # past the grace period of a stop

_log = structlog.get_logger(__name__)


class Pool:
    """Owns the supervisors. What is decided here is decided without waiting, so callers coalesce."""

    def __init__(
        self,
        catalogue: Catalogue,
        presets: Presets,
        adapters: AdapterFolder,
        store: InstanceStore,
        feed: Feed,
        launcher: Launcher,
        rules: Rules,
        probe: Probe,
    ) -> None:
        self._catalogue = catalogue
        self._presets = presets
        self._adapters = adapters
        self._store = store
        self._feed = feed
        self._launcher = launcher
        self._rules = rules
        self._supervisors: dict[str, Supervisor] = {}
        self._removals: dict[Supervisor, asyncio.Task[None]] = {}
        self._housing = Housing(
            rules,
            lambda: list(self._supervisors.values()),
            lambda: self._removals.keys(),
            lambda supervisor: self._remove(supervisor, rules.shutdown_grace),
            self._held,
            probe,
        )
        self._core_shares = CoreShares(rules.cores, lambda: self._supervisors.values(), lambda: probe.may_have_gpus)
        self._draining = False

    async def ensure(
        self, name: str, ttl: float | None = None, requested: Mapping[str, Any] = MappingProxyType({})
    ) -> Instance:
        """A ready instance of the model, or the instance, of exactly this name.

        One that is on its way is waited for; if there is none, or it failed before, one is started.
        `ttl`: seconds that one which is started now may be idle, negative for ever, None as usual.
        `requested`: load settings of one which is started now.
        Raises the error of its load; ModelNotFound; InsufficientMemory; InvalidRequest names the setting.
        """
        if requested.get("lora"):  # finding their files takes a while, in which others would start one too
            raise InvalidRequest("lora: adapters are loaded by hand, not for a request.", param="lora")
        while True:
            supervisor = self._find(name) or self._start_on_demand(name, ttl, requested)
            if supervisor.state is State.STOPPING:
                await self._remove(supervisor)
            elif supervisor.state is State.FAILED:
                await self._remove(supervisor)
                if supervisor.plan.instance_id not in self._supervisors:
                    self._start(self._again(supervisor.asked, requested))
            elif supervisor.state is State.STALLED:
                return await self._recovered(supervisor)
            else:
                return await supervisor.ready()

    async def create(
        self,
        model_key: str,
        identifier: str | None,
        requested: Mapping[str, Any],
        preset: str | None = None,
        ttl: float | None = None,
    ) -> Instance:
        """One more instance of a model, with a preset where one is named, once it is ready.

        `ttl`: seconds that it may be idle; without, it stays until it is unloaded.
        InvalidRequest names the setting that cannot be; AlreadyExists; ModelNotFound; PresetNotFound; the load's error.
        """
        model = self._catalogue.require(model_key)
        presets = self.preset_layers(model, preset)
        plan = await self._adapted(self._plan(model, "", requested, presets, on_demand=False))
        if identifier is not None:
            check_identifier(identifier)
        await self._clear_failed(model, identifier)
        plan = replace(plan, instance_id=self._claim(model, identifier), ttl=_ttl(ttl, None))
        return await self._start(plan).ready()

    async def unload(self, instance_id: str, grace_seconds: float | None) -> None:
        """End an instance; its running requests get the grace period. InstanceNotFound."""
        supervisor = self._supervisors.get(instance_id)
        if supervisor is None:
            raise InstanceNotFound(f'There is no loaded instance "{instance_id[:200]}".', param="instance_id")
        await self._remove(supervisor, self._rules.shutdown_grace if grace_seconds is None else grace_seconds)

    async def resume(self, record: InstanceRecord, process: WorkerProcess | None) -> Supervisor:
        """Take up an instance of an earlier registry: with its worker, or with a new one.

        ModelNotFound or InvalidRequest when it cannot run any more.
        """
        model = self._catalogue.require(record.model_key)
        presets = PresetLayers.from_json(record.presets)
        plan = await self._adapted(self._plan(model, record.id, record.settings, presets, on_demand=record.on_demand))
        plan = replace(plan, ttl=record.ttl)
        if process is None:
            return self._start(plan)
        return self._start(replaced(plan, record.placement, self._rules.cores), (record, process))

    def preset_layers(self, model: Model, preset: str | None) -> PresetLayers:
        """What a new instance of the model finds set; PresetNotFound."""
        default = self._presets.get(model.default_preset) if model.default_preset else None
        return PresetLayers(self._presets.require(preset) if preset else None, default)

    def check_unused(self, model: Model) -> None:
        """Conflict while an instance of the model, or one that it guesses ahead for, is loaded."""
        users = [each.plan.instance_id for each in self._supervisors.values() if model.key in each.plan.model_keys]
        if users:
            comes_back = model.replicas is not None and model.replicas.least > 0
            first = f", after atelier scale {model.key} --off, or it comes back" if comes_back else " first"
            raise Conflict(f"{model.key} is loaded, as {', '.join(users)}: unload that{first}.", param="key")

    def instance_ids(self) -> list[str]:
        return list(self._supervisors)

    def addresses(self) -> set[str]:
        """Where the workers of all instances listen."""
        return {supervisor.instance.address for supervisor in self._supervisors.values()}

    async def drain(self, grace_seconds: float) -> None:
        """Unload everything, and start nothing more."""
        self._draining = True
        stops = [asyncio.create_task(self._remove(s, grace_seconds)) for s in self._supervisors.values()]
        if not stops:
            return
        _, late = await asyncio.wait(stops, timeout=grace_seconds + KILL_AFTER_SECONDS)
        for supervisor in self._supervisors.values() if late else ():
            supervisor.kill()
        await asyncio.gather(*stops, return_exceptions=True)

    def _find(self, name: str) -> Supervisor | None:
        if self._catalogue.get(name) is None:
            return self._supervisors.get(name)
        chosen = choose(s.instance for s in self._supervisors.values() if s.plan.model.key == name)
        return self._supervisors[chosen.id] if chosen else None

    def unload_expired(self, now: float) -> None:
        """Begin to unload what has been idle for as long as it may."""
        for supervisor in [each for each in self._supervisors.values() if each.expired(now)]:
            if supervisor not in self._removals and not self._held(supervisor):
                _log.info("instance_idle", instance=supervisor.plan.instance_id, ttl=supervisor.plan.ttl)
                self._begin_removal(supervisor, self._rules.shutdown_grace)

    def replicas_of(self, key: str) -> list[Supervisor]:
        """The model's instances that are there or on their way, the oldest first; those with adapters are others."""
        return [
            each
            for each in self._supervisors.values()
            if each.plan.model.key == key
            and not each.plan.load.lora
            and each.state not in (State.FAILED, State.STOPPING)
            and each not in self._removals
        ]

    def start_replica(self, key: str, *, needed: bool) -> Supervisor:
        """One more instance, as a request would load it. Not `needed`: only into room that is free."""
        model = self._catalogue.require(key)
        presets = self.preset_layers(model, None)
        plan = self._plan(model, self._claim(model, None), {}, presets, on_demand=True)
        return self._start(replace(plan, ttl=self._rules.idle_ttl, extra=not needed))

    def clear_failed(self, key: str) -> bool:
        """Begin to remove those that failed, unless an operator loaded them; whether some still have their names."""
        failed = [
            each
            for each in self._supervisors.values()
            if each.plan.model.key == key and each.given_up and each.plan.on_demand
        ]
        for supervisor in failed:
            self.begin_unload(supervisor.plan.instance_id)
        return bool(failed)

    def begin_unload(self, instance_id: str) -> None:
        """Unload an instance, if it is still there, without waiting for it."""
        supervisor = self._supervisors.get(instance_id)
        if supervisor is not None and supervisor not in self._removals:
            self._begin_removal(supervisor, self._rules.shutdown_grace)

    def _held(self, supervisor: Supervisor) -> bool:
        """Whether it is one of those that its model shall have at least: the oldest."""
        model = self._catalogue.get(supervisor.plan.model.key)
        if model is None or model.replicas is None:
            return False
        return supervisor in self.replicas_of(model.key)[: model.replicas.least]

    async def inventory(self) -> Inventory:
        """What there is, as it is now."""
        return await self._housing.inventory()

    def instances_on(self, device: str) -> list[str]:
        """The ids of those that take memory there."""
        return sorted(
            id
            for id, each in self._supervisors.items()
            if device in each.plan.placed and each.state is not State.FAILED
        )

    def _start_on_demand(self, name: str, ttl: float | None, requested: Mapping[str, Any]) -> Supervisor:
        model = self._catalogue.get(name)
        if model is None:
            raise ModelNotFound(f'There is no model or instance "{name[:200]}".', param="model")
        presets = self.preset_layers(model, None)
        plan = self._plan(model, self._claim(model, None), requested, presets, on_demand=True)
        return self._start(replace(plan, ttl=_ttl(ttl, self._rules.idle_ttl)))

    def _again(self, plan: Plan, requested: Mapping[str, Any]) -> Plan:
        """The plan of an instance that failed, for another attempt: as it was asked for, of the model as it is now.

        What a request loads takes this request's settings and the default preset as it is now: those that
        another request had, or the preset as it was, may have been the fault.
        """
        model = self._catalogue.require(plan.model.key)
        presets = self.preset_layers(model, None) if plan.on_demand else plan.presets
        asked = requested if plan.on_demand else plan.requested
        again = self._plan(model, plan.instance_id, asked, presets, on_demand=plan.on_demand)
        return replace(again, ttl=plan.ttl, adapters=plan.adapters)

    def _start(self, plan: Plan, adopted: tuple[InstanceRecord, WorkerProcess] | None = None) -> Supervisor:
        if self._draining:
            raise Draining()
        supervisor = Supervisor(
            plan,
            self._rules,
            self._launcher,
            self._store,
            self._feed,
            adopted,
            self._housing.make_room,
            self._core_shares.settle,
        )
        self._supervisors[plan.instance_id] = supervisor
        return supervisor

    def _plan(
        self,
        model: Model,
        instance_id: str,
        requested: Mapping[str, Any],
        presets: PresetLayers,
        *,
        on_demand: bool,
    ) -> Plan:
        resolved = resolve_load(model, requested, self._catalogue.find, presets)
        draft = resolved.draft
        return Plan(
            instance_id=instance_id,
            model=model,
            draft=draft,
            # By its key: a short form may come to mean several models before this is read again.
            requested={**requested, "draft_model": draft.key} if draft else dict(requested),
            presets=presets,
            load=resolved.load,
            load_origins=resolved.origins,
            pin=pin(resolved.load, self._rules.cores),
            need=need_of(model, resolved),
            on_demand=on_demand,
        )

    async def _adapted(self, plan: Plan) -> Plan:
        """The plan with its adapters' files; InvalidRequest when one of them cannot be used."""
        files = await self._adapters.find(plan.model, plan.load.lora)
        return replace(plan, adapters=tuple(file.adapter for file in files))

    def _claim(self, model: Model, identifier: str | None) -> str:
        """The id of a new instance; AlreadyExists when the wanted one means something else."""
        if identifier is None:
            return numbered_id(model.key, self._supervisors)
        if identifier in self._supervisors:
            raise AlreadyExists(f'There is an instance "{identifier}" already.', param="identifier")
        if identifier != model.key and self._catalogue.get(identifier):
            raise AlreadyExists(f'"{identifier}" is the key of another model.', param="identifier")
        return identifier

    async def _clear_failed(self, model: Model, identifier: str | None) -> None:
        """A failed instance leaves its name to the next load."""
        for supervisor in list(self._supervisors.values()):
            wanted = supervisor.plan.instance_id == identifier or supervisor.plan.model.key == model.key
            if wanted and supervisor.state is State.FAILED:
                await self._remove(supervisor)

    async def _recovered(self, supervisor: Supervisor) -> Instance:
        try:
            async with asyncio.timeout(self._rules.stall_timeout):
                return await supervisor.ready()
        except TimeoutError:
            raise Unavailable(f"{supervisor.plan.instance_id} is loaded but does not answer.") from None

    async def _remove(self, supervisor: Supervisor, grace_seconds: float = 0.0) -> None:
        """Stop the worker and forget the instance: once, whoever asks and whoever stops asking."""
        await asyncio.shield(self._removals.get(supervisor) or self._begin_removal(supervisor, grace_seconds))

    def _begin_removal(self, supervisor: Supervisor, grace_seconds: float) -> asyncio.Task[None]:
        task = self._removals[supervisor] = asyncio.create_task(self._stop_and_forget(supervisor, grace_seconds))
        task.add_done_callback(lambda _: self._removals.pop(supervisor, None))
        return task

    async def _stop_and_forget(self, supervisor: Supervisor, grace_seconds: float) -> None:
        instance_id = supervisor.plan.instance_id
        if not self._draining:
            await self._store.remove(instance_id)  # first: when it fails, nothing has changed
        await supervisor.stop(grace_seconds)
        with suppress(AtelierError):  # again: the supervisor may have written it meanwhile
            await self._store.remove(instance_id)
        if self._supervisors.get(instance_id) is supervisor:
            del self._supervisors[instance_id]
            self._feed.remove_instance(instance_id)


def _ttl(asked: float | None, usual: float | None) -> float | None:
    """Seconds that an instance may be idle; None: for ever, which is asked for by a negative number."""
    if asked is None:
        return usual
    return asked if asked >= 0 else None
