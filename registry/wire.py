"""Conversions between the registry's records and protobuf. Pure."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import orjson

from atelier.errors import InvalidRequest, to_message
from atelier.names import MOST_REPLICAS
from atelier.settings.preset import Preset, settings_json
from atelier.settings.settings_table import load_message, sampling_message
from protos import registry_pb2 as pb
from registry.devices.compute_device import CPU, Inventory
from registry.disk.disk_usage import DiskUse
from registry.feed import Change, DownloadRemoved, InstanceRemoved, ModelRemoved, PresetRemoved, Snapshot
from registry.hub.download_record import Download
from registry.hub.hub_listing import Repository, default_variant, variants_of
from registry.instances.instance_record import Instance
from registry.models.file_digests import Verdict
from registry.models.memory_estimate import Estimate, ModelDescription
from registry.models.model_import import Mode
from registry.models.model_record import Model, Provenance, Replicas
from registry.responses.response_rows import Address, StoredResponse

MOST_BYTES = 2**63  # the field's range; a damaged header may yield more
WORKING_FACTOR = 1.2  # the memory of a model with a common context length, relative to its file

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
        provenance=_provenance_message(model.provenance) if model.provenance else None,
        default_preset=model.default_preset,
        replicas=pb.Replicas(least=model.replicas.least, most=model.replicas.most) if model.replicas else None,
        made_for_tools=facts.made_for_tools,
        made_for_reasoning=facts.made_for_reasoning,
        made_for_vision=model.projector is not None,
    )


def read_replicas(message: pb.Replicas) -> Replicas:
    """Raises InvalidRequest, which names the limit."""
    if not 1 <= message.most <= MOST_REPLICAS:
        raise InvalidRequest(f"max must be from 1 to {MOST_REPLICAS}, not {message.most}.", param="max")
    if message.least > message.most:
        raise InvalidRequest(f"min must be at most max, {message.most}, not {message.least}.", param="min")
    return Replicas(message.least, message.most)


def _provenance_message(provenance: Provenance) -> pb.Provenance:
    names = ("source", "name", "revision", "licence")
    return pb.Provenance(**{name: getattr(provenance, name) for name in names})


def description_message(description: ModelDescription) -> pb.ModelDescription:
    model = description.model
    return pb.ModelDescription(
        model=model_message(model),
        chat_template=model.facts.chat_template or "",
        made_for_tools=model.facts.made_for_tools,
        made_for_reasoning=model.facts.made_for_reasoning,
        projector=str(model.projector.path) if model.projector else None,
        licence=(model.provenance.licence if model.provenance else "") or model.facts.licence,
        memory=[
            pb.MemoryAtContext(context_length=length, estimate=estimate_message(estimate))
            for length, estimate in description.memory.items()
        ],
    )


def device_messages(inventory: Inventory, instances: Callable[[str], list[str]]) -> list[pb.Device]:
    """The GPUs, then main memory. `instances` returns the ids of those on a device."""
    gpus = [
        pb.Device(
            id=gpu.id,
            description=gpu.description,
            memory_total=gpu.total,
            memory_free=gpu.free,
            instances=instances(gpu.id),
            readings=pb.Readings(**asdict(gpu.readings)) if gpu.readings else None,
        )
        for gpu in inventory.gpus
    ]
    main = pb.Device(
        id=CPU,
        description="main memory",
        memory_total=inventory.memory_total,
        memory_free=inventory.memory_available,
        instances=instances(CPU),
    )
    return [*gpus, main]


def disk_message(use: DiskUse) -> pb.DiskUse:
    sums = ("library", "adapters", "logs", "database", "other", "used")
    return pb.DiskUse(
        file_systems=[
            pb.FileSystem(path=_text(each.path), total_bytes=each.total_bytes, free_bytes=each.free_bytes)
            for each in use.file_systems
        ],
        models=[
            pb.ModelFiles(key=each.key, size_bytes=each.size_bytes, in_library=each.in_library, names=each.names)
            for each in use.models
        ],
        downloads=[pb.DownloadFiles(id=id, size_bytes=size) for id, size in use.downloads.items()],
        leftovers=[pb.LeftoverFiles(path=_text(path), size_bytes=size) for path, size in use.leftovers.items()],
        caches=[
            pb.CacheFiles(directory=_text(each.directory), instance_id=each.instance_id, size_bytes=each.size_bytes)
            for each in use.caches
        ],
        **{f"{name}_bytes": getattr(use, f"{name}_bytes") for name in sums},
    )


def _text(path: Path | str) -> str:
    """A file name may be any bytes; a protobuf string must be UTF-8."""
    return os.fsencode(path).decode(errors="replace")


def verdict_message(verdict: Verdict) -> pb.FileVerdict:
    names = ("name", "found", "expected", "fault")
    return pb.FileVerdict(**{name: getattr(verdict, name) for name in names})


def download_message(download: Download) -> pb.Download:
    return pb.Download(
        id=download.id,
        reference=download.reference,
        repo=download.repo,
        commit=download.commit,
        files=[file.path for file in download.files],
        state=pb.DownloadState.Value(f"DOWNLOAD_{download.state.name}"),
        total_bytes=download.total_bytes,
        done_bytes=download.done_bytes,
        bytes_per_second=download.bytes_per_second,
        error=to_message(download.error) if download.error else None,
        model_key=download.model_key,
        started_at=download.started_at,
        finished_at=download.finished_at,
    )


def repository_message(repository: Repository, memory: int) -> pb.Repository:
    """`memory`: bytes available to models on this machine."""
    plain = ("id", "author", "downloads", "likes", "gated", "changed_at", "licence", "commit")
    found = variants_of(repository.files)
    preferred = default_variant(found) if found else None
    variants = [
        pb.Variant(
            quantization=variant.quantization,
            files=[file.path for file in variant.files],
            size_bytes=variant.size,
            fits=variant.size * WORKING_FACTOR <= memory,
            usual=variant is preferred,
        )
        for variant in found
    ]
    return pb.Repository(**{name: getattr(repository, name) for name in plain}, variants=variants)


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
        cache_ram_bytes=instance.cache_ram_bytes,
        cache_ram_limit_bytes=instance.cache_ram_limit_bytes,
        preset=instance.preset,
        own_settings_json=settings_json(instance.own),
        load_origins=instance.load_origins,
        ttl_seconds=instance.ttl,
    )


def preset_message(preset: Preset) -> pb.Preset:
    return pb.Preset(
        name=preset.name,
        version=preset.version,
        model_key=preset.model,
        settings_json=settings_json(preset.settings),
        changed_at=preset.changed_at,
    )


def read_preset(message: pb.Preset) -> Preset:
    """As received, not validated yet."""
    return Preset(
        name=message.name,
        version=message.version,
        model=message.model_key if message.HasField("model_key") else None,
        settings=orjson.loads(message.settings_json or b"{}"),
        changed_at=message.changed_at,
    )


def response_message(response: StoredResponse, age: float) -> pb.StoredResponse:
    address = response.address
    return pb.StoredResponse(
        id=address.id,
        owner=address.owner,
        kind=address.kind,
        previous_id=response.previous_id,
        body=response.body,
        created_at=response.created_at,
        age_seconds=age,
    )


def read_response(message: pb.StoredResponse) -> StoredResponse:
    """As received, not validated yet."""
    previous_id = message.previous_id if message.HasField("previous_id") else None
    return StoredResponse(read_address(message), previous_id, message.body, message.created_at)


def read_address(message: pb.ResponseRequest | pb.StoredResponse) -> Address:
    return Address(message.id, message.owner, message.kind)


def estimate_message(estimate: Estimate) -> pb.MemoryEstimate:
    parts = {
        "weights": estimate.weights,
        "kv_cache": estimate.kv_cache,
        "compute": estimate.compute,
        "weights_in_main_memory": estimate.fixed.get(CPU, 0),
    }
    return pb.MemoryEstimate(**{name: min(value, MOST_BYTES) for name, value in parts.items()})


def change_message(change: Change) -> pb.Change:
    match change:
        case Snapshot(models, instances, downloads, presets):
            snapshot = pb.Snapshot(
                models=[model_message(model) for model in models],
                instances=[instance_message(instance) for instance in instances],
                downloads=[download_message(download) for download in downloads],
                presets=[preset_message(preset) for preset in presets],
            )
            return pb.Change(snapshot=snapshot)
        case Model():
            return pb.Change(model=model_message(change))
        case Instance():
            return pb.Change(instance=instance_message(change))
        case Download():
            return pb.Change(download=download_message(change))
        case Preset():
            return pb.Change(preset=preset_message(change))
        case PresetRemoved(name):
            return pb.Change(preset_removed=name)
        case ModelRemoved(key):
            return pb.Change(model_removed=key)
        case InstanceRemoved(instance_id):
            return pb.Change(instance_removed=instance_id)
        case DownloadRemoved(download_id):
            return pb.Change(download_removed=download_id)
