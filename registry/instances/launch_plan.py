"""What an instance is started with, and the rules that all instances live by."""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atelier.adapters import Adapter
from atelier.config import Config
from atelier.hardware import available_cores, physical_cores
from atelier.launch import LaunchSpec
from atelier.settings import Load
from registry.devices.placement import Need
from registry.instances.instance_record import Instance, file_name
from registry.instances.preset_layers import PresetLayers
from registry.models.model_record import Model
from registry.pinning import Pin


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Taken from the configuration. All times are in seconds."""

    engine: str
    worker_grace: float
    load_timeout: float
    stall_timeout: float
    restart_limit: int
    shutdown_grace: float
    cache_dir: Path
    idle_ttl: float | None  # of instances that requests loaded; None: they stay
    guardrail: str
    room_timeout: float
    guardrail_bytes: int
    script: dict[str, Any] = field(default_factory=dict)
    host: str = field(default_factory=platform.node)
    cores: frozenset[int] = field(default_factory=lambda: available_cores())


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One instance that shall run."""

    instance_id: str
    model: Model
    draft: Model | None  # guesses ahead for the model
    requested: dict[str, Any]  # load settings, as asked for
    presets: PresetLayers
    load: Load  # as resolved
    load_origins: dict[str, str]  # where each of its values comes from
    pin: Pin
    on_demand: bool
    ttl: float | None = None  # seconds without work after which it is unloaded; None: it stays
    extra: bool = False  # a convenience: it takes only room that is free
    need: Need | None = None  # what it takes, wherever it is put
    placed: Mapping[str, int] = field(default_factory=dict)  # bytes that it takes by device, as far as they are known
    adapters: tuple[Adapter, ...] = ()

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

    def spec(self, rules: Rules, address: str, token: str) -> LaunchSpec:
        return LaunchSpec(
            instance_id=self.instance_id,
            engine=rules.engine,
            model_path=str(self.model.path),
            projector_path=str(self.model.projector.path) if self.model.projector else None,
            draft_model_path=str(self.draft.path) if self.draft else None,
            load=self.load,
            address=address,
            token=token,
            grace_seconds=rules.worker_grace,
            cache_dir=str(rules.cache_dir / file_name(self.instance_id)),
            cores=self.pin.cores,
            threads=len(physical_cores(self.pin.cores or rules.cores)),
            adapters=list(self.adapters),
            script=rules.script,
        )


def rules_of(config: Config) -> Rules:
    """The configuration's rules; ValueError when the script is not JSON."""
    return Rules(
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
