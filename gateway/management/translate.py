"""The core's facts as our own routes show them. Pure."""

from typing import Any

from gateway.errors import envelope
from gateway.lmstudio.translate import load_config
from gateway.snapshot import Instance

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
        "error": envelope(instance.error)["error"] if instance.error else None,
        "config": load_config(instance),
    }
