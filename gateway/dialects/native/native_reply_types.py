"""The replies of our own routes."""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from gateway.dialects.lmstudio.lmstudio_reply_types import V1Model
from gateway.dialects.route import Fault


class RemovedModel(TypedDict):
    model: str
    deleted: Annotated[list[str], Field(description="Paths of the files.")]


class VerifiedFile(TypedDict):
    """Digests of what was found and of what was downloaded."""

    name: str
    found: str | None
    expected: str | None
    fault: str | None


class VerifiedModel(TypedDict):
    model: str
    ok: bool
    files: list[VerifiedFile]


class AdapterObject(TypedDict):
    id: int
    name: str
    scale: float


class InstanceObject(TypedDict):
    id: str
    model: str
    state: Literal["starting", "loading", "ready", "stalled", "restarting", "stopping", "failed"]
    pin: str
    pid: int
    host: str
    context_length: int
    parallel: int
    gpu_layers: int
    active: int
    queued: int
    load_progress: float
    load_time_seconds: float
    restarts: int
    on_demand: bool
    started_at: float
    ttl_seconds: float | None
    preset: str | None
    error: Fault | None
    config: dict[str, Any]
    adapters: list[AdapterObject]


class InstanceList(TypedDict):
    instances: list[InstanceObject]


class SequenceObject(TypedDict):
    request_id: str
    choice: int
    priority: int
    prompt_tokens: int
    done_tokens: int
    cached_tokens: int
    predicted_tokens: int
    age_seconds: float
    state: Literal["waiting", "prefill", "decode", "unknown"]


class SequenceList(TypedDict):
    sequences: list[SequenceObject]


class DeviceReadings(TypedDict):
    """null: the device does not tell."""

    uuid: str | None
    pci_bus_id: str | None
    driver_version: str | None
    utilization_percent: int | None
    memory_utilization_percent: int | None
    memory_used_bytes: int | None
    temperature_celsius: int | None
    power_watts: float | None
    power_limit_watts: float | None


class DeviceObject(TypedDict):
    id: str
    description: str
    memory_total_bytes: int
    memory_free_bytes: int
    instances: list[str]
    readings: DeviceReadings | None


class DeviceList(TypedDict):
    devices: list[DeviceObject]


class FileSystem(TypedDict):
    path: str
    total_bytes: int
    free_bytes: int


class ModelOnDisk(TypedDict):
    key: str
    size_bytes: int
    in_library: bool
    names: int


class DownloadOnDisk(TypedDict):
    job_id: str
    size_bytes: int


class Leftover(TypedDict):
    path: str
    size_bytes: int


class CacheOnDisk(TypedDict):
    directory: str
    instance: str | None
    size_bytes: int


class DiskObject(TypedDict):
    file_systems: list[FileSystem]
    models: list[ModelOnDisk]
    downloads: list[DownloadOnDisk]
    leftovers: list[Leftover]
    caches: list[CacheOnDisk]
    library_bytes: int
    adapters_bytes: int
    logs_bytes: int
    database_bytes: int
    other_bytes: int
    used_bytes: int


class RequestCounts(TypedDict):
    active: int
    waiting: int


class ServerStatus(TypedDict):
    version: str
    uptime_seconds: float
    registry: Literal["connected", "away"]
    models: int
    instances: int
    requests: RequestCounts


class ReplicaLimits(TypedDict):
    min: int
    max: int


class ModelReplicas(TypedDict):
    model: str
    replicas: ReplicaLimits | None


class ModelSource(TypedDict):
    source: Literal["hub", "pypi"]
    name: str
    revision: str


class MemoryAtContext(TypedDict):
    context_length: int
    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    total_bytes: int


class DescribedModel(V1Model):
    path: str
    parameters: int
    embedding_length: int
    licence: str | None
    default_preset: str | None
    replicas: ReplicaLimits | None
    made_for_tools: bool
    made_for_reasoning: bool
    made_for_vision: bool
    projector: str | None
    chat_template: str | None
    source: ModelSource | None
    memory: list[MemoryAtContext]


class Greeting(TypedDict):
    lmstudio: Literal[True]
