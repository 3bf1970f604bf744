"""What our own routes return of models and their instances: the types, and builders of them. Pure."""

from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import Field
from typing_extensions import TypedDict

from atelier.json_types import Json
from atelier.lora_adapters import read_adapters
from gateway.dialects.lmstudio.lmstudio_model_list import V1Model, load_config
from gateway.dialects.native.native_requests import ReplicasBody
from gateway.dialects.route import Fault
from gateway.fleet.snapshot import Instance
from gateway.http.error_responses import error_envelope
from protos import inference_pb2 as pb
from protos.registry_pb2 import ModelDescription, Provenance, Replicas, VerifyModelReply

InstanceState = Literal["starting", "loading", "ready", "stalled", "restarting", "stopping", "failed"]
SequenceState = Literal["waiting", "prefill", "decode", "unknown"]

SEQUENCE_STATES: Mapping[int, SequenceState] = {
    pb.SEQUENCE_WAITING: "waiting",
    pb.SEQUENCE_PREFILL: "prefill",
    pb.SEQUENCE_DECODE: "decode",
}


class RemovedModel(TypedDict):
    model: str
    deleted: Annotated[list[str], Field(description="Paths of the files.")]


class VerifiedFile(TypedDict):
    """Digests of the file found and of the file that was downloaded."""

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
    state: InstanceState
    pin: str
    pid: int
    host: str
    context_length: int
    parallel: int
    gpu_layers: int
    cache_ram_bytes: int
    cache_ram_limit_bytes: int
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
    config: Json
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
    state: SequenceState


class SequenceList(TypedDict):
    sequences: list[SequenceObject]


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


def verified_model(key: str, reply: VerifyModelReply) -> VerifiedModel:
    files = [
        VerifiedFile(
            name=file.name,
            found=file.found or None,
            expected=file.expected or None,
            fault=file.fault or None,
        )
        for file in reply.files
    ]
    return {"model": key, "ok": not any(file.fault for file in reply.files), "files": files}


def instance_object(instance: Instance) -> InstanceObject:
    return {
        "id": instance.id,
        "pin": instance.pin,
        "pid": instance.pid,
        "host": instance.host,
        "context_length": instance.context_length,
        "parallel": instance.parallel,
        "gpu_layers": instance.gpu_layers,
        "cache_ram_bytes": instance.cache_ram_bytes,
        "cache_ram_limit_bytes": instance.cache_ram_limit_bytes,
        "active": instance.active,
        "queued": instance.queued,
        "load_progress": instance.load_progress,
        "restarts": instance.restarts,
        "on_demand": instance.on_demand,
        "model": instance.model_key,
        "state": cast(InstanceState, instance.state.value),
        "load_time_seconds": instance.load_seconds,
        "started_at": instance.started_at,
        "ttl_seconds": instance.ttl,
        "preset": instance.preset or None,
        "error": error_envelope(instance.error)["error"] if instance.error else None,
        "config": load_config(instance),
        "adapters": adapter_list(instance),
    }


def adapter_list(instance: Instance) -> list[AdapterObject]:
    """The LoRA adapters: their names in requests, and their scales in requests that name none."""
    adapters = read_adapters(instance.lora)
    return [{"id": id, "name": each.name, "scale": each.scale} for id, each in enumerate(adapters)]


def sequence_object(sequence: pb.Sequence) -> SequenceObject:
    return {
        "request_id": sequence.request_id,
        "choice": sequence.choice,
        "priority": sequence.priority,
        "prompt_tokens": sequence.prompt_tokens,
        "done_tokens": sequence.done_tokens,
        "cached_tokens": sequence.cached_tokens,
        "predicted_tokens": sequence.predicted_tokens,
        "age_seconds": sequence.age_seconds,
        "state": SEQUENCE_STATES.get(sequence.state, "unknown"),
    }


def replica_limits(replicas: Replicas) -> ReplicaLimits:
    return {"min": replicas.least, "max": replicas.most}


def read_replicas(body: ReplicasBody) -> Replicas | None:
    """None if neither limit is set. The registry validates them."""
    if body.min is None and body.max is None:
        return None
    least = body.min or 0
    return Replicas(least=least, most=max(least, 1) if body.max is None else body.max)


def described_object(described: ModelDescription, listed: V1Model) -> DescribedModel:
    """`listed`: the model's entry in the list of models."""
    model = described.model
    return {
        **listed,
        "path": model.path,
        "parameters": model.parameters,
        "embedding_length": model.embedding_length,
        "licence": described.licence or None,
        "default_preset": model.default_preset or None,
        "replicas": replica_limits(model.replicas) if model.HasField("replicas") else None,
        "made_for_tools": described.made_for_tools,
        "made_for_reasoning": described.made_for_reasoning,
        "made_for_vision": model.made_for_vision,
        "projector": described.projector or None,
        "chat_template": described.chat_template or None,
        "source": _source(model.provenance) if model.HasField("provenance") else None,
        "memory": [
            {
                "context_length": each.context_length,
                "weights_bytes": each.estimate.weights,
                "kv_cache_bytes": each.estimate.kv_cache,
                "compute_bytes": each.estimate.compute,
                "total_bytes": each.estimate.weights + each.estimate.kv_cache + each.estimate.compute,
            }
            for each in described.memory
        ],
    }


def _source(provenance: Provenance) -> ModelSource:
    source = cast(Literal["hub", "pypi"], provenance.source)
    return {"source": source, "name": provenance.name, "revision": provenance.revision}
