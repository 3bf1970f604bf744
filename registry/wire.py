"""What the registry knows, as protobuf: pure conversions."""

from atelier.errors import to_message
from atelier.settings.wire import load_message, sampling_message
from protos import registry_pb2 as pb
from registry.feed import Change, InstanceRemoved, ModelRemoved, Snapshot
from registry.instances.instance import Instance
from registry.models.estimate import Estimate
from registry.models.importing import Mode
from registry.models.model import Model

MOST_BYTES = 2**63  # a header may say anything

MODES = {
    pb.ImportModelRequest.MODE_UNSPECIFIED: Mode.COPY,
    pb.ImportModelRequest.COPY: Mode.COPY,
    pb.ImportModelRequest.LINK: Mode.LINK,
    pb.ImportModelRequest.IN_PLACE: Mode.IN_PLACE,
}


def model_message(model: Model) -> pb.Model:
    facts = model.facts
    return pb.Model(
        key=model.key,
        path=str(model.path),
        publisher=model.publisher,
        name=model.name,
        display_name=model.display_name,
        architecture=facts.architecture,
        quantization=facts.quantization,
        bits_per_weight=facts.bits_per_weight,
        size_bytes=facts.size_bytes,
        parameters=facts.parameters,
        max_context_length=facts.context_length,
        embedding=facts.embedding,
        imported_at=model.imported_at,
        sampling_defaults=sampling_message(facts.sampling_defaults),
        layers=facts.layers,
        embedding_length=facts.embedding_length,
    )


def instance_message(instance: Instance) -> pb.Instance:
    return pb.Instance(
        id=instance.id,
        model_key=instance.model_key,
        state=pb.InstanceState.Value(instance.state.name),
        address=instance.address,
        token=instance.token,
        load=load_message(instance.load),
        pin=instance.pin,
        pid=instance.pid,
        load_progress=instance.load_progress,
        load_seconds=instance.load_seconds,
        error=to_message(instance.error) if instance.error else None,
        on_demand=instance.on_demand,
        active=instance.active,
        queued=instance.queued,
        restarts=instance.restarts,
        started_at=instance.started_at,
        host=instance.host,
        context_length=instance.context_length,
        parallel=instance.parallel,
        gpu_layers=instance.gpu_layers,
    )


def estimate_message(estimate: Estimate) -> pb.MemoryEstimate:
    parts = {"weights": estimate.weights, "kv_cache": estimate.kv_cache, "compute": estimate.compute}
    return pb.MemoryEstimate(**{name: min(value, MOST_BYTES) for name, value in parts.items()})


def change_message(change: Change) -> pb.Change:
    match change:
        case Snapshot(models, instances):
            snapshot = pb.Snapshot(
                models=[model_message(model) for model in models],
                instances=[instance_message(instance) for instance in instances],
            )
            return pb.Change(snapshot=snapshot)
        case Model():
            return pb.Change(model=model_message(change))
        case Instance():
            return pb.Change(instance=instance_message(change))
        case ModelRemoved(key):
            return pb.Change(model_removed=key)
        case InstanceRemoved(instance_id):
            return pb.Change(instance_removed=instance_id)
