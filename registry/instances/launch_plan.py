"""What an instance is started with, and the planner that makes it from a request."""

import json
import platform
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from atelier.config import Config
from atelier.hardware import available_cores, physical_cores
from atelier.json_types import Json
from atelier.launch import LaunchSpec
from atelier.lora_adapters import Adapter
from atelier.settings import Load
from registry.devices.pinning import Pin, pin
from registry.devices.placement import MemoryNeed
from registry.instances.instance_record import Instance, file_name
from registry.instances.load_request import PresetLayers, instance_memory, need_of, resolve_load
from registry.models.adapter_files import AdapterFolder, memory_of
from registry.models.memory_estimate import Estimate
from registry.models.model_catalogue import ModelCatalogue
from registry.models.model_record import Model
from registry.presets.preset_catalogue import Presets


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRules:
    """The part of the configuration that concerns all instances. Times are in seconds."""

    engine: str
    worker_grace: float
    load_timeout: float
    stall_timeout: float
    restart_limit: int
    shutdown_grace: float
    cache_dir: Path
    idle_ttl: float | None  # of instances that requests loaded; None: they are never unloaded
    guardrail: str
    room_timeout: float
    guardrail_bytes: int
    script: Json = field(default_factory=dict)
    host: str = field(default_factory=platform.node)
    cores: frozenset[int] = field(default_factory=lambda: available_cores())


def launch_rules(config: Config) -> LaunchRules:
    """Raises ValueError if the script is not JSON."""
    return LaunchRules(
        engine=config.engine,
        script=json.loads(config.script) if config.script else {},
        worker_grace=config.worker_grace,
        load_timeout=config.load_timeout,
        stall_timeout=config.stall_timeout,
        restart_limit=config.restart_limit,
        shutdown_grace=config.shutdown_grace,
        cache_dir=config.cache_dir,
        idle_ttl=config.idle_ttl or None,
        guardrail=config.guardrail,
        room_timeout=config.room_timeout,
        guardrail_bytes=config.guardrail_mb * 2**20,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """One instance that should run."""

    instance_id: str
    model: Model
    draft: Model | None  # its draft model
    requested: Json  # load settings, as requested
    presets: PresetLayers
    load: Load  # as resolved
    load_origins: dict[str, str]  # the origin of each of its values
    pin: Pin
    on_demand: bool
    ttl: float | None = None  # seconds without work after which it is unloaded; None: never
    extra: bool = False  # optional: it takes free memory only
    need: MemoryNeed | None = None  # what it takes, wherever it is placed
    placed: Mapping[str, int] = field(default_factory=dict)  # bytes that it takes by device, as far as known
    adapters: tuple[Adapter, ...] = ()
    cache_sized: bool = False  # load.cache_ram was left open: admission chooses it

    @property
    def model_keys(self) -> set[str]:
        """Of the models whose files it maps."""
        return {self.model.key, *([self.draft.key] if self.draft else [])}

    def new_instance(self, host: str) -> Instance:
        return Instance(
            id=self.instance_id,
            model_key=self.model.key,
            load=self.load,
            load_origins=self.load_origins,
            preset=self.presets.chosen.name if self.presets.chosen else "",
            own=self.presets.own,
            pin=self.pin.description,
            on_demand=self.on_demand,
            ttl=self.ttl,
            host=host,
        )

    def spec(self, rules: LaunchRules, address: str, token: str) -> LaunchSpec:
        return LaunchSpec(
            instance_id=self.instance_id,
            engine=rules.engine,
            model_path=str(self.model.path),
            projector_path=str(self.model.projector.path) if self.model.projector else None,
            draft_model_path=str(self.draft.path) if self.draft else None,
            architecture=self.model.facts.architecture,
            load=self.load,
            address=address,
            token=token,
            grace_seconds=rules.worker_grace,
            cache_sized=self.cache_sized,
            cache_dir=str(rules.cache_dir / file_name(self.instance_id)),
            cores=self.pin.cores,
            threads=len(physical_cores(self.pin.cores or rules.cores)),
            adapters=list(self.adapters),
            script=rules.script,
        )


class LaunchPlanner:
    """Resolves requested load settings, presets, draft model and adapters into plans. Stateless."""

    def __init__(
        self, catalogue: ModelCatalogue, presets: Presets, adapters: AdapterFolder, cores: Collection[int]
    ) -> None:
        self._catalogue = catalogue
        self._presets = presets
        self._adapters = adapters
        self._cores = cores

    def plan(
        self, model: Model, instance_id: str, requested: Json, presets: PresetLayers, *, on_demand: bool
    ) -> LaunchPlan:
        """Without adapters, and before memory admission chooses devices. Raises InvalidRequest, ModelNotFound."""
        resolved = resolve_load(model, requested, self._catalogue.find, presets)
        draft = resolved.draft
        return LaunchPlan(
            instance_id=instance_id,
            model=model,
            draft=draft,
            # By its key: a short form may become ambiguous before this is read again.
            requested={**requested, "draft_model": draft.key} if draft else dict(requested),
            presets=presets,
            load=resolved.load,
            load_origins=resolved.origins,
            pin=pin(resolved.load, self._cores),
            need=need_of(model, resolved),
            on_demand=on_demand,
            cache_sized=resolved.load.cache_ram is None,
        )

    def retry_plan(self, plan: LaunchPlan, requested: Json) -> LaunchPlan:
        """The plan of an instance that failed, for another attempt with the model's present record.

        An instance that a request loaded takes this request's settings and the present default preset: the earlier
        ones may have caused the failure.
        """
        model = self._catalogue.require(plan.model.key)
        presets = self.preset_layers(model, None) if plan.on_demand else plan.presets
        settings = requested if plan.on_demand else plan.requested
        again = self.plan(model, plan.instance_id, settings, presets, on_demand=plan.on_demand)
        return replace(again, ttl=plan.ttl, adapters=plan.adapters)

    async def with_adapters(self, plan: LaunchPlan) -> LaunchPlan:
        """The plan with its adapters' files. Raises InvalidRequest if one of them cannot be used."""
        files = await self._adapters.find(plan.model, plan.load.lora)
        return replace(plan, adapters=tuple(file.adapter for file in files))

    def preset_layers(self, model: Model, preset: str | None) -> PresetLayers:
        """The presets of a new instance of the model. Raises PresetNotFound."""
        default = self._presets.get(model.default_preset) if model.default_preset else None
        return PresetLayers(self._presets.require(preset) if preset else None, default)

    async def estimate(self, model_key: str, requested: Json, preset: str | None) -> Estimate:
        """The memory of an instance with these settings, adapters included; raises as loading it would."""
        model = self._catalogue.require(model_key)
        estimate = self.estimator(model, preset)(requested)
        return estimate + memory_of(await self._adapters.find(model, requested.get("lora", [])))

    def estimator(self, model: Model, preset: str | None = None) -> Callable[[Json], Estimate]:
        """Estimates instances of the model, by load settings, with the present presets. May be called on a thread."""
        presets, find = self.preset_layers(model, preset), self._catalogue.find
        return lambda requested: instance_memory(model, resolve_load(model, requested, find, presets))
