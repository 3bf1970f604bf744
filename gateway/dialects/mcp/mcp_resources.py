"""The MCP server's resources, in JSON: models, instances, presets, logs and metrics."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

import orjson
from mcp.shared.uri_template import UriTemplate
from mcp_types import Resource, ResourceTemplate, TextResourceContents
from prometheus_client import CollectorRegistry

from atelier.errors import NotFound
from atelier.json_types import Json
from atelier.log_file import tail
from gateway.dialects.lmstudio.lmstudio_model_list import v1_model
from gateway.dialects.native.model_replies import described_object, instance_object
from gateway.dialects.native.preset_replies import preset_object
from gateway.dialects.route import JSON
from gateway.fleet.control import Control
from gateway.fleet.snapshot import Snapshot
from gateway.fleet.watcher import Watcher

SCHEME = "atelier://"
METRICS = f"{SCHEME}metrics"
METRICS_DESCRIPTION = "The metrics of the gateway that answers, since its start."

TEMPLATES = {
    "models": UriTemplate.parse(f"{SCHEME}models/{{+key}}"),  # keys and ids contain slashes
    "instances": UriTemplate.parse(f"{SCHEME}instances/{{+id}}"),
    "presets": UriTemplate.parse(f"{SCHEME}presets/{{name}}"),
    "logs": UriTemplate.parse(f"{SCHEME}logs/{{name}}"),
}
"""Of the entries of each kind."""
LIST_DESCRIPTIONS = {
    "models": "The models that can be loaded.",
    "instances": "The models that are loaded or being loaded.",
    "presets": "The presets, with their settings.",
    "logs": "The logs of the machine whose gateway answers.",
}
ENTRY_DESCRIPTIONS = {
    "models": "All that is known of a model.",
    "instances": "An instance: its state, place and settings.",
    "presets": "A preset, with its settings.",
    "logs": "The end of a log.",
}

LOG_BYTES = 64 * 2**10  # shown of a log's end
HIDDEN_SERIES = ("_bucket", "_created")  # suffixes of metrics' names


def list_uri(kind: str) -> str:
    return f"{SCHEME}{kind}"


def entry_uri(kind: str, name: str) -> str:
    template = TEMPLATES[kind]
    return template.expand({template.variable_names[0]: name})


def kind_of(uri: str) -> tuple[str, str | None] | None:
    """The kind and the entry's name (None: the kind's list). None for other URIs."""
    for kind, template in TEMPLATES.items():
        if uri == list_uri(kind):
            return kind, None
        if match := template.match(uri):
            return kind, str(match[template.variable_names[0]])
    return None


class LogFiles:
    """The log files of this machine's home. Looks a name up among them: a client's text never becomes a path."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> list[str]:
        return sorted(self._files())

    def all(self) -> Json:
        stats = [(name, path.stat()) for name, path in sorted(self._files().items())]
        return {
            "logs": [{"name": name, "size_bytes": info.st_size, "changed_at": info.st_mtime} for name, info in stats]
        }

    def one(self, name: str) -> Json | None:
        """Its last lines; None if there is no such log."""
        path = self._files().get(name)
        return None if path is None else {"name": name, "lines": tail(path, most=LOG_BYTES)}

    def _files(self) -> dict[str, Path]:
        """By name without the suffix. Without links, which could lead anywhere."""
        return {path.stem: path for path in self._directory.glob("*.log") if path.is_file() and not path.is_symlink()}


def metric_series(registry: CollectorRegistry) -> Json:
    """What GET /metrics returns, without the histograms' buckets: by the series' name, each value with its labels."""
    series: dict[str, list[Json]] = {}
    for family in registry.collect():
        for sample in family.samples:
            if not sample.name.endswith(HIDDEN_SERIES):
                series.setdefault(sample.name, []).append({"labels": sample.labels, "value": sample.value})
    return {"series": series}


class Resources:
    """A view of the watcher's snapshot, the logs and the metrics."""

    def __init__(self, watcher: Watcher, control: Control, logs: LogFiles, metrics: CollectorRegistry) -> None:
        self._watcher = watcher
        self._control = control
        self._logs = logs
        self._metrics = metrics

    async def listed(self) -> list[Resource]:
        """The lists, then all entries."""
        lists = [_resource(list_uri(kind), kind, description) for kind, description in LIST_DESCRIPTIONS.items()]
        entries = [
            _resource(entry_uri(kind, name), name, description)
            for kind, description in ENTRY_DESCRIPTIONS.items()
            for name in await self.names(kind)
        ]
        return [*lists, _resource(METRICS, "metrics", METRICS_DESCRIPTION), *entries]

    def templates(self) -> list[ResourceTemplate]:
        return [
            ResourceTemplate(name=kind, uri_template=str(TEMPLATES[kind]), description=description, mime_type=JSON)
            for kind, description in ENTRY_DESCRIPTIONS.items()
        ]

    async def names(self, kind: str) -> list[str]:
        if kind == "logs":
            return await asyncio.to_thread(self._logs.names)
        return sorted(_entries(self._watcher.known(), kind))

    async def read(self, uri: str) -> TextResourceContents:
        """Raises NotFound, for other URIs and for missing entries."""
        value = await self._value(uri)
        if value is None:
            raise NotFound(f"There is no resource {uri[:300]}. resources/list returns all resources.", param="uri")
        return TextResourceContents(uri=uri, mime_type=JSON, text=orjson.dumps(value).decode())

    async def _value(self, uri: str) -> Mapping[str, object] | None:
        if uri == METRICS:
            return metric_series(self._metrics)
        match kind_of(uri):
            case "logs", None:
                return await asyncio.to_thread(self._logs.all)
            case "logs", str(name):
                return await asyncio.to_thread(self._logs.one, name)
            case kind, None:
                snapshot = self._watcher.known()
                return {kind: [_entry_object(snapshot, kind, name) for name in sorted(_entries(snapshot, kind))]}
            case kind, str(name):
                return await self._entry(self._watcher.known(), kind, name)
        return None

    async def _entry(self, snapshot: Snapshot, kind: str, name: str) -> Mapping[str, object] | None:
        if name not in _entries(snapshot, kind):
            return None
        if kind == "models":
            described = await self._control.describe_model(name)
            return described_object(described, v1_model(snapshot.models[name], snapshot))
        return _entry_object(snapshot, kind, name)


def _resource(uri: str, name: str, description: str) -> Resource:
    return Resource(uri=uri, name=name, description=description, mime_type=JSON)


def _entries(snapshot: Snapshot, kind: str) -> Iterable[str]:
    match kind:
        case "models":
            return snapshot.models
        case "instances":
            return snapshot.instances
    return snapshot.presets


def _entry_object(snapshot: Snapshot, kind: str, name: str) -> Mapping[str, object]:
    """As the REST API lists it."""
    match kind:
        case "models":
            return v1_model(snapshot.models[name], snapshot)
        case "instances":
            return instance_object(snapshot.instances[name])
    return preset_object(snapshot.presets[name])
