"""Presets and what settings come to: create, edit, duplicate, compare, delete, import, export, explain."""

from collections.abc import Sequence
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response

from atelier.errors import AlreadyExists, Conflict, InvalidRequest, ModelNotFound, NotFound, PresetNotFound
from atelier.json_types import Json, json_bytes
from atelier.names import InstanceName, find_name, near_hint
from atelier.settings import Value
from atelier.settings.lmstudio_preset import read_file, write_file
from atelier.settings.preset import Preset, Settings, changed, check_settings, difference
from atelier.settings.settings_table import GROUPS
from gateway.core.call_plan import default_preset, effective, find_preset, layers_of, load_values
from gateway.dialects.body import parse, read_body
from gateway.dialects.native.native_requests import (
    DefaultPresetBody,
    DuplicateBody,
    PresetBody,
    PresetChangeBody,
    PresetImportBody,
)
from gateway.dialects.native.preset_reply_types import (
    DefaultPreset,
    DeletedPreset,
    ExportedPreset,
    ImportedPreset,
    ModelSettings,
    PresetDiff,
    PresetList,
    PresetObject,
    PresetVersions,
)
from gateway.dialects.reply import json_response
from gateway.dialects.route import MODEL, Route
from gateway.fleet.control import Control
from gateway.fleet.snapshot import LOADED, Instance, Model, Snapshot
from gateway.fleet.watcher import Watcher

LMSTUDIO = "lmstudio"  # the format of its *.preset.json

VERSION = {"version": {"type": "integer", "minimum": 1, "description": "The newest, where none is named."}}
EXAMPLE = {"load": {}, "prompt": {"system_prompt": "Be brief."}, "inference": {"temperature": 0.2}}


class PresetRoutes:
    tag: ClassVar[str] = "Management"

    def __init__(self, watcher: Watcher, control: Control) -> None:
        self._watcher = watcher
        self._control = control

    def routes(self) -> Sequence[Route]:
        return (
            Route("GET /api/v1/presets", self.list, "List the presets", reply=PresetList),
            Route(
                "POST /api/v1/presets/import",
                self.import_file,
                "Import a preset",
                body=PresetImportBody,
                request={"file": {"name": "precise", **EXAMPLE}},
                errors=(AlreadyExists,),
                reply=ImportedPreset,
            ),
            Route(
                "GET /api/v1/presets/{name}",
                self.get,
                "One preset, or an earlier version of it",
                errors=(PresetNotFound,),
                query=VERSION,
                reply=PresetObject,
            ),
            Route(
                "PUT /api/v1/presets/{name}",
                self.put,
                "Create a preset, or replace it",
                body=PresetBody,
                request=EXAMPLE,
                errors=(Conflict,),
                reply=PresetObject,
            ),
            Route(
                "PATCH /api/v1/presets/{name}",
                self.patch,
                "Change some of a preset",
                body=PresetChangeBody,
                request={"inference": {"temperature": 0.5}},
                errors=(PresetNotFound, Conflict),
                reply=PresetObject,
            ),
            Route(
                "DELETE /api/v1/presets/{name}",
                self.delete,
                "Delete a preset",
                errors=(PresetNotFound, Conflict),
                reply=DeletedPreset,
            ),
            Route(
                "GET /api/v1/presets/{name}/versions",
                self.versions,
                "Every version of a preset",
                errors=(PresetNotFound,),
                reply=PresetVersions,
            ),
            Route(
                "GET /api/v1/presets/{name}/diff",
                self.diff,
                "How a preset differs from another",
                errors=(PresetNotFound, InvalidRequest),
                query={
                    **VERSION,
                    "with": {"type": "string", "description": "Another preset: this, or a version of its own."},
                },
                reply=PresetDiff,
            ),
            Route(
                "GET /api/v1/presets/{name}/export",
                self.export,
                "A preset as a file",
                errors=(PresetNotFound, InvalidRequest),
                query={**VERSION, "format": {"enum": [LMSTUDIO]}},
                reply=ExportedPreset,
            ),
            Route(
                "POST /api/v1/presets/{name}/duplicate",
                self.duplicate,
                "Copy a preset",
                body=DuplicateBody,
                request={"name": "copy"},
                errors=(PresetNotFound, AlreadyExists),
                query=VERSION,
                reply=PresetObject,
            ),
            Route(
                "POST /api/v1/models/default-preset",
                self.set_default,
                "Choose a model's default preset",
                body=DefaultPresetBody,
                request={"model": MODEL, "preset": "precise"},
                errors=(ModelNotFound, PresetNotFound),
                reply=DefaultPreset,
            ),
            Route(
                "GET /api/v1/models/{id:path}/settings",
                self.settings,
                "A model's settings, with their origins",
                errors=(ModelNotFound,),
                query={"instance": {"type": "string"}, "preset": {"type": "string"}},
                reply=ModelSettings,
            ),
        )

    async def list(self, request: Request) -> Response:
        presets = sorted(self._watcher.known().presets.items())
        return json_response({"presets": [preset_object(preset) for _, preset in presets]})

    async def get(self, request: Request) -> Response:
        return json_response(preset_object(await self._named(request)))

    async def versions(self, request: Request) -> Response:
        versions = await self._control.preset_versions(request.path_params["name"])
        return json_response({"versions": [preset_object(version) for version in versions]})

    async def put(self, request: Request) -> Response:
        """Create it, or replace all of it."""
        body = await read_body(request, PresetBody)
        preset = Preset(name=request.path_params["name"], model=body.model, settings=given(body))
        return json_response(preset_object(await self._control.put_preset(preset, body.version)))

    async def patch(self, request: Request) -> Response:
        """Change what the body has; null takes a setting out."""
        body = await read_body(request, PresetChangeBody)
        before = self._require(request.path_params["name"])
        changes = {group: values for group in GROUPS if (values := getattr(body, group)) is not None}
        after = Preset(
            name=before.name,
            model=body.model if "model" in body.model_fields_set else before.model,
            settings=changed(before, changes),
        )
        if body.version not in (None, before.version):
            raise Conflict(f'"{before.name}" is at version {before.version} here; look at it and try again.')
        return json_response(preset_object(await self._control.put_preset(after, before.version)))

    async def delete(self, request: Request) -> Response:
        name = request.path_params["name"]
        await self._control.delete_preset(name)
        return json_response({"name": name, "deleted": True})

    async def duplicate(self, request: Request) -> Response:
        body = await read_body(request, DuplicateBody)
        source = await self._named(request)
        copy = Preset(name=body.name, model=source.model, settings=source.settings)
        return json_response(preset_object(await self._control.put_preset(copy, 0)))

    async def diff(self, request: Request) -> Response:
        """Against another preset, or an earlier version of itself."""
        after = self._require(request.path_params["name"])
        other, version = request.query_params.get("with"), request.query_params.get("version")
        if (other is None) == (version is None):
            raise InvalidRequest("Name either a preset to compare it with, or a version of its own.", param="with")
        before = self._require(other) if other is not None else await self._version(after.name, version or "")
        differences = [
            {"group": each.group, "setting": each.name, "before": each.before, "after": each.after}
            for each in difference(before, after)
        ]
        sides = [{"name": side.name, "version": side.version} for side in (before, after)]
        return json_response({"before": sides[0], "after": sides[1], "differences": differences})

    async def export(self, request: Request) -> Response:
        preset = await self._named(request)
        form = request.query_params.get("format", "")
        if form not in ("", LMSTUDIO):
            raise InvalidRequest(f"format: {LMSTUDIO}, or none for our own", param="format")
        return json_response(write_file(preset) if form else exported(preset))

    async def import_file(self, request: Request) -> Response:
        """What `export` gives, or a *.preset.json of LM Studio's."""
        body = await read_body(request, PresetImportBody)
        name, model, settings, ignored = read_import(body.file)
        if not (body.name or name):
            raise InvalidRequest("The file names no preset; give it a name.", param="name")
        preset = Preset(name=body.name or name, model=model, settings=settings)
        written = await self._control.put_preset(preset, None if body.replace else 0)
        return json_response({**preset_object(written), "ignored": ignored})

    async def set_default(self, request: Request) -> Response:
        body = await read_body(request, DefaultPresetBody)
        snapshot = self._watcher.known()
        found = find_name(body.model, snapshot.models, ())
        key = found.id if isinstance(found, InstanceName) else found.key
        model = snapshot.models[key]
        if body.preset is not None:
            find_preset(body.preset, model, snapshot)
        await self._control.set_default_preset(key, body.preset)
        return json_response({"model": key, "default_preset": body.preset})

    async def settings(self, request: Request) -> Response:
        """Every setting of a model, with where it comes from: as a request would find them that sets none."""
        query = request.query_params
        return json_response(
            settings_object(
                self._watcher.known(), request.path_params["id"], query.get("instance"), query.get("preset")
            )
        )

    def _require(self, name: str) -> Preset:
        presets = self._watcher.known().presets
        if preset := presets.get(name):
            return preset
        raise PresetNotFound(f'There is no preset "{name[:100]}".{near_hint(name, presets)}', param="name")

    async def _named(self, request: Request) -> Preset:
        """The preset of the path, at the version of the query if there is one."""
        preset = self._require(request.path_params["name"])
        version = request.query_params.get("version")
        return preset if version is None else await self._version(preset.name, version)

    async def _version(self, name: str, version: str) -> Preset:
        for preset in await self._control.preset_versions(name):
            if str(preset.version) == version:
                return preset
        raise NotFound(f'There is no version {version[:20]} of "{name}".', param="version")


def meant(name: str, instance_id: str | None, snapshot: Snapshot) -> tuple[Model, Instance | None]:
    """The model, and the instance whose own settings count: the named one, or the only one that is loaded."""
    found = find_name(name, snapshot.models, snapshot.instances)
    if isinstance(found, InstanceName):
        instance = snapshot.instances[found.id]
        return snapshot.models.get(instance.model_key) or Model(key=instance.model_key), instance
    model = snapshot.models[found.key]
    loaded = [each for each in snapshot.instances_of(model.key) if each.state in LOADED]
    if instance_id is None:
        return model, loaded[0] if len(loaded) == 1 else None
    for each in snapshot.instances_of(model.key):
        if each.id == instance_id:
            return model, each
    raise NotFound(f'{model.key} has no instance "{instance_id[:200]}".', param="instance")


def settings_object(snapshot: Snapshot, name: str, instance_id: str | None, preset_name: str | None) -> Json:
    """Every setting of a model, with its origin."""
    model, instance = meant(name, instance_id, snapshot)
    preset, default = find_preset(preset_name, model, snapshot), default_preset(model, snapshot)
    resolved = effective(layers_of({}, preset, default, model, instance)).values
    load = load_values(model, instance, preset, default, snapshot.models)
    return {
        "model": model.key,
        "instance": instance.id if instance else None,
        "preset": preset.name if preset else None,
        "default_preset": default.name if default else None,
        "settings": {name: value_object(value) for name, value in {**load, **resolved}.items()},
    }


def given(body: PresetBody) -> Settings:
    return check_settings({group: values for group in GROUPS if (values := getattr(body, group))})


def preset_object(preset: Preset) -> Json:
    return {**exported(preset), "version": preset.version, "changed_at": preset.changed_at}


def exported(preset: Preset) -> Json:
    groups: Json = {group: _plain(preset.settings.get(group, {})) for group in GROUPS}
    return {"name": preset.name, "model": preset.model, **groups}


def value_object(value: Value) -> Json:
    shown = _plain({"value": value.value})["value"] if isinstance(value.value, dict) else value.value
    return {"value": shown, "origin": value.origin}


def read_import(file: Json) -> tuple[str, str | None, Settings, list[str]]:
    """Name, model, settings, and the keys that mean nothing here; InvalidRequest."""
    if "operation" in file or (isinstance(load := file.get("load"), dict) and "fields" in load):
        read = read_file(file)
        return read.name, None, read.settings, list(read.ignored)
    ours = {name: file[name] for name in (*GROUPS, "model") if name in file}
    body = parse(json_bytes(ours, "file"), PresetBody)
    name = file.get("name")
    known = {*GROUPS, "model", "name", "version", "changed_at"}
    return name if isinstance(name, str) else "", body.model, given(body), [key for key in file if key not in known]


def _plain(values: Any) -> Json:
    """Keys that are numbers as text, as JSON has them."""
    return {
        name: {str(key): each for key, each in value.items()} if isinstance(value, dict) else value
        for name, value in values.items()
    }
