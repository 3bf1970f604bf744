"""The registry's protobuf to the snapshot's types, and what is sent to it. Pure."""

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from atelier.errors import from_message
from atelier.json_types import Json
from atelier.settings.preset import Preset, settings_from_json, settings_json
from atelier.settings.settings_table import load_values, sampling_values
from gateway.fleet.snapshot import Download, DownloadState, Instance, InstanceState, Model, Snapshot, StoredResponse
from protos import registry_pb2 as pb

T = TypeVar("T")

STATES = {value: InstanceState(name.lower()) for name, value in pb.InstanceState.items() if value}
DOWNLOAD_STATES = {
    value: DownloadState(name.removeprefix("DOWNLOAD_").lower()) for name, value in pb.DownloadState.items() if value
}

CONVERTED = {
    *("sampling_defaults", "state", "load", "error", "files", "own", "load_origins", "ttl", "replicas"),
    "hub_repo",
}


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
    return snapshot  # a kind of change that only a newer registry knows


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
        state=STATES.get(message.state, InstanceState.UNKNOWN),
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


def preset_message(preset: Preset) -> pb.Preset:
    return pb.Preset(name=preset.name, model_key=preset.model, settings_json=settings_json(preset.settings))


def response_message(response: StoredResponse) -> pb.StoredResponse:
    return pb.StoredResponse(
        id=response.id,
        owner=response.owner,
        kind=response.kind,
        body=response.body,
        created_at=response.created_at,
        previous_id=response.previous_id,
    )


def read_response(message: pb.StoredResponse) -> StoredResponse:
    return StoredResponse(
        message.id,
        message.owner,
        message.kind,
        message.body,
        message.created_at,
        message.previous_id if message.HasField("previous_id") else None,
        message.age_seconds,
    )


def _plain(message: pb.Model | pb.Instance | pb.Download, kind: type[Model | Instance | Download]) -> Json:
    """The fields that need no conversion."""
    return {f.name: getattr(message, f.name) for f in dataclasses.fields(kind) if f.name not in CONVERTED}


def _without(entries: Mapping[str, T], name: str) -> dict[str, T]:
    return {key: entry for key, entry in entries.items() if key != name}
