"""The core's facts as our own routes show them. Pure."""

from dataclasses import fields
from typing import Any

from atelier.adapters import read_adapters
from atelier.hardware import Readings
from gateway.dialects.lmstudio.lmstudio_translation import load_config
from gateway.dialects.native.native_requests import ReplicasBody
from gateway.fleet.snapshot import Instance
from gateway.http.error_responses import error_envelope
from protos import inference_pb2 as pb
from protos.registry_pb2 import Device, DiskUse, ModelDescription, Replicas

PLAIN = (
    *("id", "pin", "pid", "host", "context_length", "parallel", "gpu_layers"),
    *("active", "queued", "load_progress", "restarts", "on_demand"),
)


def instance_object(instance: Instance) -> dict[str, Any]:
    return {
        **{name: getattr(instance, name) for name in PLAIN},
        "model": instance.model_key,
        "state": instance.state.value,
        "load_time_seconds": instance.load_seconds,
        "started_at": instance.started_at,
        "ttl_seconds": instance.ttl,
        "preset": instance.preset or None,
        "error": error_envelope(instance.error)["error"] if instance.error else None,
        "config": load_config(instance),
        "adapters": adapter_list(instance),
    }


def adapter_list(instance: Instance) -> list[dict[str, Any]]:
    """The LoRA adapters, with what a request may call them and their scale in requests that name none."""
    adapters = read_adapters(instance.load.get("lora", []))
    return [{"id": id, "name": each.name, "scale": each.scale} for id, each in enumerate(adapters)]


def described_object(described: ModelDescription, listed: dict[str, Any]) -> dict[str, Any]:
    """`listed`: the model as the list has it."""
    model = described.model
    provenance = model.provenance if model.HasField("provenance") else None
    return {
        **listed,
        "path": model.path,
        "parameters": model.parameters,
        "embedding_length": model.embedding_length,
        "licence": described.licence or None,
        "default_preset": model.default_preset or None,
        "replicas": {"min": model.replicas.least, "max": model.replicas.most} if model.HasField("replicas") else None,
        "made_for_tools": described.made_for_tools,
        "made_for_reasoning": described.made_for_reasoning,
        "made_for_vision": model.made_for_vision,
        "projector": described.projector or None,
        "chat_template": described.chat_template or None,
        "source": {name: getattr(provenance, name) for name in ("source", "name", "revision")} if provenance else None,
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


def read_replicas(body: ReplicasBody) -> Replicas | None:
    """None: neither limit is given. The registry says what cannot be."""
    if body.min is None and body.max is None:
        return None
    least = body.min or 0
    return Replicas(least=least, most=max(least, 1) if body.max is None else body.max)


def device_object(device: Device) -> dict[str, Any]:
    return {
        "id": device.id,
        "description": device.description,
        "memory_total_bytes": device.memory_total,
        "memory_free_bytes": device.memory_free,
        "instances": list(device.instances),
        "readings": _readings_object(device) if device.HasField("readings") else None,
    }


def _readings_object(device: Device) -> dict[str, Any]:
    """All of them by name; null: not told."""
    told = {field.name: value for field, value in device.readings.ListFields()}
    return {field.name: told.get(field.name) for field in fields(Readings)}


DISK_SUMS = ("library_bytes", "adapters_bytes", "logs_bytes", "database_bytes", "other_bytes", "used_bytes")


def disk_object(use: DiskUse) -> dict[str, Any]:
    return {
        "file_systems": [
            {"path": each.path, "total_bytes": each.total_bytes, "free_bytes": each.free_bytes}
            for each in use.file_systems
        ],
        "models": [
            {"key": each.key, "size_bytes": each.size_bytes, "in_library": each.in_library, "names": each.names}
            for each in use.models
        ],
        "downloads": [{"job_id": each.id, "size_bytes": each.size_bytes} for each in use.downloads],
        "leftovers": [{"path": each.path, "size_bytes": each.size_bytes} for each in use.leftovers],
        "caches": [
            {"directory": each.directory, "instance": each.instance_id or None, "size_bytes": each.size_bytes}
            for each in use.caches
        ],
        **{name: getattr(use, name) for name in DISK_SUMS},
    }


SEQUENCE_STATES = {pb.SEQUENCE_WAITING: "waiting", pb.SEQUENCE_PREFILL: "prefill", pb.SEQUENCE_DECODE: "decode"}
SEQUENCE_PLAIN = (
    *("request_id", "choice", "priority", "prompt_tokens"),
    *("done_tokens", "cached_tokens", "predicted_tokens", "age_seconds"),
)


def sequence_object(sequence: pb.Sequence) -> dict[str, Any]:
    return {
        **{name: getattr(sequence, name) for name in SEQUENCE_PLAIN},
        "state": SEQUENCE_STATES.get(sequence.state, "unknown"),
    }
