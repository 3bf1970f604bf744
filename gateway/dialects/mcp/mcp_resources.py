"""What the server has, as resources: models, instances, presets, metrics and logs, in JSON."""

import asyncio
from collections.abc import Iterable

import orjson
from mcp_types import Resource, ResourceTemplate, TextResourceContents
from prometheus_client import CollectorRegistry

from atelier.errors import NotFound
from atelier.json_types import Json
from gateway.dialects.lmstudio.lmstudio_translation import v1_model
from gateway.dialects.mcp.log_resources import Logs
from gateway.dialects.mcp.metric_values import figures
from gateway.dialects.mcp.resource_uris import METRICS, TEMPLATES, entry_uri, kind_of, list_uri
from gateway.dialects.native.native_translation import described_object, instance_object
from gateway.dialects.native.preset_routes import preset_object
from gateway.dialects.route import JSON
from gateway.fleet.control import Control
from gateway.fleet.snapshot import Snapshot
from gateway.fleet.watcher import Watcher

ALL = {
    "models": "The models that can be loaded.",
    "instances": "The models that are loaded, or on their way.",
    "presets": "The presets, with their settings.",
    "logs": "The logs of the machine whose gateway answers.",
}
ONE = {
    "models": "All that is known of a model.",
    "instances": "An instance: its state, place and settings.",
    "presets": "A preset, with its settings.",
    "logs": "The end of a log.",
}
METRICS_TOLD = "What the gateway that answers has counted since it started."


class Resources:
    """A view of the watcher's snapshot, the metrics and the logs."""

    def __init__(self, watcher: Watcher, control: Control, logs: Logs, metrics: CollectorRegistry) -> None:
        self._watcher = watcher
        self._control = control
        self._logs = logs
        self._metrics = metrics

    async def listed(self) -> list[Resource]:
        """The lists, then every entry."""
        lists = [resource(list_uri(kind), kind, told) for kind, told in ALL.items()]
        entries = [
            resource(entry_uri(kind, name), name, told) for kind, told in ONE.items() for name in await self.names(kind)
        ]
        return [*lists, resource(METRICS, "metrics", METRICS_TOLD), *entries]

    def templates(self) -> Iterable[ResourceTemplate]:
        return [
            ResourceTemplate(name=kind, uri_template=str(TEMPLATES[kind]), description=told, mime_type=JSON)
            for kind, told in ONE.items()
        ]

    async def names(self, kind: str) -> list[str]:
        if kind == "logs":
            return await asyncio.to_thread(self._logs.names)
        return sorted(_entries(self._watcher.known(), kind))

    async def read(self, uri: str) -> TextResourceContents:
        """NotFound for what is no resource, and for an entry that is not there."""
        found = await self._value(uri)
        if found is None:
            raise NotFound(f"There is no resource {uri[:300]}. resources/list has those there are.", param="uri")
        return TextResourceContents(uri=uri, mime_type=JSON, text=orjson.dumps(found).decode())

    async def _value(self, uri: str) -> Json | None:
        if uri == METRICS:
            return figures(self._metrics)
        match kind_of(uri):
            case "logs", None:
                return await asyncio.to_thread(self._logs.all)
            case "logs", str(name):
                return await asyncio.to_thread(self._logs.one, name)
            case kind, None:
                snapshot = self._watcher.known()
                return {kind: [_shown(snapshot, kind, name) for name in sorted(_entries(snapshot, kind))]}
            case kind, str(name):
                return await self._entry(self._watcher.known(), kind, name)
        return None

    async def _entry(self, snapshot: Snapshot, kind: str, name: str) -> Json | None:
        if name not in _entries(snapshot, kind):
            return None
        shown = _shown(snapshot, kind, name)
        return described_object(await self._control.describe_model(name), shown) if kind == "models" else shown


def resource(uri: str, name: str, description: str) -> Resource:
    return Resource(uri=uri, name=name, description=description, mime_type=JSON)


def _entries(snapshot: Snapshot, kind: str) -> Iterable[str]:
    match kind:
        case "models":
            return snapshot.models
        case "instances":
            return snapshot.instances
    return snapshot.presets


def _shown(snapshot: Snapshot, kind: str, name: str) -> Json:
    """As the REST API lists it."""
    match kind:
        case "models":
            return v1_model(snapshot.models[name], snapshot)
        case "instances":
            return instance_object(snapshot.instances[name])
    return preset_object(snapshot.presets[name])
