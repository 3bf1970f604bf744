"""What the registry holds, as it last reported it. Immutable: a change makes a new snapshot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from atelier.errors import AtelierError
from atelier.settings.declaration import SettingValue
from atelier.settings.preset import Preset, Settings

Launch = tuple[str, str, str]
"""Instance id, address and token: they identify a process."""


class InstanceState(StrEnum):
    """An instance's state; the value is its name in the REST API."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    STALLED = "stalled"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    FAILED = "failed"


LOADED = frozenset({InstanceState.READY, InstanceState.STALLED})


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
    sampling_defaults: Mapping[str, SettingValue] = field(default_factory=dict)  # from the file, by setting
    default_preset: str = ""
    made_for_tools: bool = False  # its chat template has them
    made_for_reasoning: bool = False
    made_for_vision: bool = False
    replicas: tuple[int, int] | None = None  # minimum and maximum of instances; None: as many as are loaded
    hub_repo: str = ""  # the repository that it was downloaded from


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A model that is loaded, or being loaded."""

    id: str
    model_key: str
    state: InstanceState = InstanceState.UNKNOWN
    address: str = ""
    token: str = ""
    load: Mapping[str, SettingValue] = field(default_factory=dict)  # by setting
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
    cache_ram_bytes: int = 0  # of host memory that saved prefixes take
    cache_ram_limit_bytes: int = 0  # that they may take
    preset: str = ""  # that it was loaded with
    own: Settings = field(default_factory=dict)  # prompt and inference settings for requests that set none
    load_origins: Mapping[str, str] = field(default_factory=dict)  # by setting
    ttl: float | None = None  # idle seconds after which it is unloaded; None: never

    @property
    def launch(self) -> Launch:
        """A restarted instance has a new token, and often a new address."""
        return self.id, self.address, self.token

    @property
    def lora(self) -> Sequence[str]:
        """Its LoRA adapters, as the load setting names them."""
        entries = self.load.get("lora")
        return [str(entry) for entry in entries] if isinstance(entries, list) else []

    @property
    def draft_model(self) -> str | None:
        """The key of the model that it speculates with."""
        return str(self.load["draft_model"]) if self.load.get("draft_model") else None


class DownloadState(StrEnum):
    """The value is its name in the REST API."""

    UNKNOWN = "unknown"
    QUEUED = "queued"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    COMPLETED = "completed"
    PAUSED = "paused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """Files that the registry downloads from the hub."""

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
        """At the present rate; None while nothing is transferred."""
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
        """The instance's model, whose entry may have been removed while the instance still runs."""
        return self.models.get(instance.model_key) or Model(key=instance.model_key)


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response that its client may fetch again or continue. `body`: JSON in the format of the dialect `kind`."""

    id: str
    owner: str  # see gateway.dialects.reply.owner_of
    kind: str  # "openai", "lmstudio", ...
    body: bytes
    created_at: float  # seconds since the epoch
    previous_id: str | None = None  # of the response that it continues
    age: float = 0.0  # seconds since it was last written, when it was read
