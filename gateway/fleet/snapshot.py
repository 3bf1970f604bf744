"""What exists, as the registry last told it. Immutable: a change makes a new snapshot."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeVar

from atelier.errors import AtelierError, from_message
from atelier.settings.preset import Preset, Settings, settings_from_json
from atelier.settings.settings_wire import load_values, sampling_values
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
    default_preset: str = ""
    made_for_tools: bool = False  # its chat template asks for them
    made_for_reasoning: bool = False
    made_for_vision: bool = False
    replicas: tuple[int, int] | None = None  # least and most instances; None: as many as are loaded
    hub_repo: str = ""  # that it was downloaded from


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
    preset: str = ""  # that it was loaded with
    own: Settings = field(default_factory=dict)  # what requests to it find set, where they are silent
    load_origins: Mapping[str, str] = field(default_factory=dict)  # of each load setting
    ttl: float | None = None  # seconds without work after which it is unloaded; None: it stays

    @property
    def launch(self) -> Launch:
        """A restarted instance has another token, often another address."""
        return self.id, self.address, self.token


class DownloadState(StrEnum):
    """The value is its name in the REST API."""

    UNKNOWN = "unknown"
    QUEUED = "queued"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    COMPLETED = "completed"
    PAUSED = "paused"
    FAILED = "failed"


DOWNLOAD_STATES = {
    value: DownloadState(name.removeprefix("DOWNLOAD_").lower()) for name, value in pb.DownloadState.items() if value
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """Files of the hub on their way to the registry."""

    id: str
    reference: str = ""
    repo: str = ""
    commit: str = ""
    files: Sequence[str] = ()
    state: DownloadState = DownloadState.UNKNOWN
    total_bytes: int = 0
    done_bytes: int = 0
    bytes_per_second: float = 0.0
    error: AtelierError | None = None
    model_key: str = ""  # once it is completed
    started_at: float = 0.0  # seconds since the epoch
    finished_at: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the present rate; None where there is none."""
        if self.state is not DownloadState.DOWNLOADING or not self.bytes_per_second:
            return None
        return (self.total_bytes - self.done_bytes) / self.bytes_per_second


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Models by key, instances and downloads by id, presets by name."""

    models: Mapping[str, Model] = field(default_factory=dict)
    instances: Mapping[str, Instance] = field(default_factory=dict)
    downloads: Mapping[str, Download] = field(default_factory=dict)
    presets: Mapping[str, Preset] = field(default_factory=dict)

    def instances_of(self, key: str) -> list[Instance]:
        return [instance for instance in self.instances.values() if instance.model_key == key]

    def model_of(self, instance: Instance) -> Model:
        """The instance's model. An instance may outlive its model's entry."""
        return self.models.get(instance.model_key) or Model(key=instance.model_key)


def apply(snapshot: Snapshot, change: pb.Change) -> Snapshot:
    """The snapshot after the change."""
    match change.WhichOneof("change"):
        case "snapshot":
            return read_snapshot(change.snapshot)
        case "model":
            return replace(snapshot, models={**snapshot.models, change.model.key: read_model(change.model)})
        case "model_removed":
            return replace(snapshot, models=_without(snapshot.models, change.model_removed))
        case "instance":
            changed = {**snapshot.instances, change.instance.id: read_instance(change.instance)}
            return replace(snapshot, instances=changed)
        case "instance_removed":
            return replace(snapshot, instances=_without(snapshot.instances, change.instance_removed))
        case "download":
            downloads = {**snapshot.downloads, change.download.id: read_download(change.download)}
            return replace(snapshot, downloads=downloads)
        case "download_removed":
            return replace(snapshot, downloads=_without(snapshot.downloads, change.download_removed))
        case "preset":
            return replace(snapshot, presets={**snapshot.presets, change.preset.name: read_preset(change.preset)})
        case "preset_removed":
            return replace(snapshot, presets=_without(snapshot.presets, change.preset_removed))
    return snapshot  # a kind of change that a newer registry knows


def read_snapshot(message: pb.Snapshot) -> Snapshot:
    return Snapshot(
        {model.key: read_model(model) for model in message.models},
        {instance.id: read_instance(instance) for instance in message.instances},
        {download.id: read_download(download) for download in message.downloads},
        {preset.name: read_preset(preset) for preset in message.presets},
    )


def read_model(message: pb.Model) -> Model:
    return Model(
        **_plain(message, Model),
        sampling_defaults=sampling_values(message.sampling_defaults),
        replicas=(message.replicas.least, message.replicas.most) if message.HasField("replicas") else None,
        hub_repo=message.provenance.name if message.provenance.source == "hub" else "",
    )


def read_instance(message: pb.Instance) -> Instance:
    return Instance(
        **_plain(message, Instance),
        state=STATES.get(message.state, State.UNKNOWN),
        load=load_values(message.load),
        error=from_message(message.error) if message.HasField("error") else None,
        own=settings_from_json(message.own_settings_json or b"{}"),
        load_origins=dict(message.load_origins),
        ttl=message.ttl_seconds if message.HasField("ttl_seconds") else None,
    )


def read_preset(message: pb.Preset) -> Preset:
    return Preset(
        name=message.name,
        version=message.version,
        model=message.model_key if message.HasField("model_key") else None,
        settings=settings_from_json(message.settings_json or b"{}"),
        changed_at=message.changed_at,
    )


def read_download(message: pb.Download) -> Download:
    return Download(
        **_plain(message, Download),
        state=DOWNLOAD_STATES.get(message.state, DownloadState.UNKNOWN),
        files=tuple(message.files),
        error=from_message(message.error) if message.HasField("error") else None,
    )


_CONVERTED = {
    *("sampling_defaults", "state", "load", "error", "files", "own", "load_origins", "ttl", "replicas"),
    "hub_repo",
}


def _plain(message: pb.Model | pb.Instance | pb.Download, kind: type[Model | Instance | Download]) -> dict[str, Any]:
    """The fields that need no conversion."""
    return {f.name: getattr(message, f.name) for f in dataclasses.fields(kind) if f.name not in _CONVERTED}


def _without(entries: Mapping[str, T], name: str) -> dict[str, T]:
    return {key: entry for key, entry in entries.items() if key != name}
