"""What exists, as the registry last told it. Immutable: a change makes a new snapshot."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from atelier.errors import AtelierError, from_message
from atelier.settings.wire import load_values, sampling_values
from protos import registry_pb2 as pb

T = TypeVar("T")

Launch = tuple[str, str, str]
"""Instance id, address and token: which process it is."""


class State(StrEnum):
    """An instance's state; the value is its name in the REST API."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    STALLED = "stalled"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    FAILED = "failed"


STATES = {value: State(name.lower()) for name, value in pb.InstanceState.items() if value}
LOADED = frozenset({State.READY, State.STALLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model file that can be loaded."""

    key: str
    publisher: str = ""
    display_name: str = ""
    architecture: str = ""
    quantization: str = ""
    bits_per_weight: float = 0.0
    size_bytes: int = 0
    parameters: int = 0
    max_context_length: int = 0
    embedding: bool = False
    imported_at: float = 0.0  # seconds since the epoch
    layers: int = 0
    sampling_defaults: Mapping[str, Any] = field(default_factory=dict)  # from the file, by setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A model that is loaded, or on its way."""

    id: str
    model_key: str
    state: State = State.UNKNOWN
    address: str = ""
    token: str = ""
    load: Mapping[str, Any] = field(default_factory=dict)  # by setting
    pin: str = ""
    pid: int = 0
    load_progress: float = 0.0
    load_seconds: float = 0.0
    error: AtelierError | None = None
    on_demand: bool = False
    active: int = 0
    queued: int = 0
    restarts: int = 0
    started_at: float = 0.0
    host: str = ""
    context_length: int = 0
    parallel: int = 0
    gpu_layers: int = 0

    @property
    def launch(self) -> Launch:
        """A restarted instance has another token, often another address."""
        return self.id, self.address, self.token


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Models by key and instances by id."""

    models: Mapping[str, Model] = field(default_factory=dict)
    instances: Mapping[str, Instance] = field(default_factory=dict)

    def instances_of(self, key: str) -> list[Instance]:
        return [instance for instance in self.instances.values() if instance.model_key == key]


def apply(snapshot: Snapshot, change: pb.Change) -> Snapshot:
    """The snapshot after the change."""
    match change.WhichOneof("change"):
        case "snapshot":
            return read_snapshot(change.snapshot)
        case "model":
            return Snapshot({**snapshot.models, change.model.key: read_model(change.model)}, snapshot.instances)
        case "model_removed":
            return Snapshot(_without(snapshot.models, change.model_removed), snapshot.instances)
        case "instance":
            changed = {**snapshot.instances, change.instance.id: read_instance(change.instance)}
            return Snapshot(snapshot.models, changed)
        case "instance_removed":
            return Snapshot(snapshot.models, _without(snapshot.instances, change.instance_removed))
    return snapshot  # a kind of change that a newer registry knows


def read_snapshot(message: pb.Snapshot) -> Snapshot:
    return Snapshot(
        {model.key: read_model(model) for model in message.models},
        {instance.id: read_instance(instance) for instance in message.instances},
    )


def read_model(message: pb.Model) -> Model:
    return Model(**_plain(message, Model), sampling_defaults=sampling_values(message.sampling_defaults))


def read_instance(message: pb.Instance) -> Instance:
    return Instance(
        **_plain(message, Instance),
        state=STATES.get(message.state, State.UNKNOWN),
        load=load_values(message.load),
        error=from_message(message.error) if message.HasField("error") else None,
    )


_CONVERTED = {"sampling_defaults", "state", "load", "error"}


def _plain(message: pb.Model | pb.Instance, kind: type[Model | Instance]) -> dict[str, Any]:
    """The fields that need no conversion."""
    return {f.name: getattr(message, f.name) for f in dataclasses.fields(kind) if f.name not in _CONVERTED}


def _without(entries: Mapping[str, T], name: str) -> dict[str, T]:
    return {key: entry for key, entry in entries.items() if key != name}
