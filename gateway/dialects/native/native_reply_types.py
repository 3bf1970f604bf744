"""The replies of our own routes."""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from gateway.dialects.documented import KEY, MODEL, PLAIN, Documented, Fault
from gateway.dialects.lmstudio.lmstudio_reply_types import V1_ENTRY, V1Model
from gateway.dialects.native import download_reply_types as documented_downloads
from gateway.dialects.native import preset_reply_types as documented_presets


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


INSTANCE = {
    "id": KEY,
    "model": KEY,
    "state": "ready",
    "pin": "cpu cores 0-7",
    "pid": 4242,
    "host": "",
    "context_length": 4096,
    "parallel": 8,
    "gpu_layers": 0,
    "active": 1,
    "queued": 0,
    "load_progress": 1.0,
    "load_time_seconds": 0.42,
    "restarts": 0,
    "on_demand": True,
    "started_at": 1795588000.0,
    "ttl_seconds": 3600.0,
    "preset": None,
    "error": None,
    "config": {"context_length": 4096, "parallel": 8},
    "adapters": [],
}
SEQUENCE = {
    "request_id": "req-7",
    "choice": 0,
    "priority": 0,
    "prompt_tokens": 31,
    "done_tokens": 31,
    "cached_tokens": 28,
    "predicted_tokens": 4,
    "age_seconds": 0.07,
    "state": "decode",
}
DEVICE = {
    "id": "cpu",
    "description": "main memory",
    "memory_total_bytes": 68719476736,
    "memory_free_bytes": 51539607552,
    "instances": [KEY],
    "readings": None,
}
DISK = {
    "file_systems": [{"path": "/home/lab/.atelier", "total_bytes": 1000000000000, "free_bytes": 300000000000}],
    "models": [{"key": KEY, "size_bytes": 98000000, "in_library": True, "names": 1}],
    "downloads": [],
    "leftovers": [],
    "caches": [],
    "library_bytes": 98000000,
    "adapters_bytes": 0,
    "logs_bytes": 20000,
    "database_bytes": 90000,
    "other_bytes": 0,
    "used_bytes": 98110000,
}

DOCUMENTED = {
    **documented_downloads.DOCUMENTED,
    **documented_presets.DOCUMENTED,
    "POST /api/v1/models/import": Documented(
        reply=V1Model, request={"path": "/data/models/Tiny.Q4_1.gguf"}, example=V1_ENTRY
    ),
    "POST /api/v1/models/remove": Documented(
        reply=RemovedModel,
        request={"model": MODEL},
        example={"model": KEY, "deleted": ["/home/lab/.atelier/models/a/b/c.gguf"]},
    ),
    "POST /api/v1/models/verify": Documented(
        reply=VerifiedModel,
        request={"model": MODEL},
        example={
            "model": KEY,
            "ok": True,
            "files": [{"name": "c.gguf", "found": "ab" * 32, "expected": "ab" * 32, "fault": None}],
        },
    ),
    "GET /api/v1/instances": Documented(reply=InstanceList, example={"instances": [INSTANCE]}),
    "GET /api/v1/instances/{id}/sequences": Documented(reply=SequenceList, example={"sequences": [SEQUENCE]}),
    "GET /api/v1/devices": Documented(reply=DeviceList, example={"devices": [DEVICE]}),
    "GET /api/v1/disk": Documented(reply=DiskObject, example=DISK),
    "GET /api/v1/status": Documented(
        reply=ServerStatus,
        example={
            "version": "0.1.0",
            "uptime_seconds": 12.5,
            "registry": "connected",
            "models": 1,
            "instances": 1,
            "requests": {"active": 0, "waiting": 0},
        },
    ),
    "POST /api/v1/models/replicas": Documented(
        reply=ModelReplicas,
        request={"model": MODEL, "min": 1, "max": 3},
        example={"model": KEY, "replicas": {"min": 1, "max": 3}},
    ),
    "GET /api/v1/models/{id}/info": Documented(
        reply=DescribedModel,
        example={
            **V1_ENTRY,
            "path": "/home/lab/.atelier/models/HuggingFaceTB/SmolLM2/SmolLM2.Q4_1.gguf",
            "parameters": 134515008,
            "embedding_length": 576,
            "licence": "apache-2.0",
            "default_preset": None,
            "replicas": None,
            "made_for_tools": False,
            "made_for_reasoning": False,
            "made_for_vision": False,
            "projector": None,
            "chat_template": "{% for message in messages %}...{% endfor %}",
            "source": None,
            "memory": [
                {
                    "context_length": 4096,
                    "weights_bytes": 98000000,
                    "kv_cache_bytes": 94371840,
                    "compute_bytes": 10000000,
                    "total_bytes": 202371840,
                }
            ],
        },
    ),
    "GET /lmstudio-greeting": Documented(reply=Greeting, example={"lmstudio": True}),
    "GET /healthz": Documented(media=PLAIN, example="ok\n"),
    "GET /readyz": Documented(media=PLAIN, example="ready\n"),
    "GET /metrics": Documented(media=PLAIN, example="# TYPE atelier_requests_total counter\n"),
}
