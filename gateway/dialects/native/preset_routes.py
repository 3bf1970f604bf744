"""Presets: create, edit, duplicate, compare, delete, import, export; and models' effective settings."""

from collections.abc import Sequence
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response

from atelier.errors import AlreadyExists, Conflict, InvalidRequest, ModelNotFound, NotFound, PresetNotFound
from atelier.json_types import Json, json_bytes
from atelier.names import InstanceName, find_name, near_hint
from atelier.settings.lmstudio_preset import read_file, write_file
from atelier.settings.preset import Preset, Settings, changed, check_settings
from atelier.settings.settings_table import GROUPS
from gateway.core.call_plan import find_preset
from gateway.dialects.body import parse, read_body
from gateway.dialects.native.native_requests import (
    DefaultPresetBody,
    DuplicateBody,
    PresetBody,
    PresetChangeBody,
    PresetImportBody,
)
from gateway.dialects.native.preset_replies import (
    DefaultPreset,
    DeletedPreset,
    ExportedPreset,
    ImportedPreset,
    ModelSettings,
    PresetDiff,
    PresetList,
    PresetObject,
    PresetVersions,
    exported,
    preset_diff,
    preset_object,
    settings_object,
)
from gateway.dialects.reply import json_response
from gateway.dialects.route import MODEL, Route
from gateway.fleet.control import Control
from gateway.fleet.watcher import Watcher

LMSTUDIO = "lmstudio"  # the format of its *.preset.json

VERSION = {"version": {"type": "integer", "minimum": 1, "description": "Default: the newest."}}
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
                "A preset, or an earlier version of it",
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
                "Change settings of a preset",
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
                    "with": {"type": "string", "description": "Another preset. Either this or version is required."},
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
                "Set a model's default preset",
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
        return json_response(PresetList(presets=[preset_object(preset) for _, preset in presets]))

    async def get(self, request: Request) -> Response:
        return json_response(preset_object(await self._named(request)))

    async def versions(self, request: Request) -> Response:
        versions = await self._control.preset_versions(request.path_params["name"])
        return json_response(PresetVersions(versions=[preset_object(version) for version in versions]))

    async def put(self, request: Request) -> Response:
        """Creates it, or replaces it whole."""
        body = await read_body(request, PresetBody)
        preset = Preset(name=request.path_params["name"], model=body.model, settings=settings_of(body))
        return json_response(preset_object(await self._control.put_preset(preset, body.version)))

    async def patch(self, request: Request) -> Response:
        """Changes the settings that the body sets; null removes one."""
        body = await read_body(request, PresetChangeBody)
        before = self._require(request.path_params["name"])
        changes = {group: values for group in GROUPS if (values := getattr(body, group)) is not None}
        after = Preset(
            name=before.name,
            model=body.model if "model" in body.model_fields_set else before.model,
            settings=changed(before, changes),
        )
        if body.version not in (None, before.version):
            raise Conflict(f'"{before.name}" is at version {before.version}; read it again and repeat the change.')
        return json_response(preset_object(await self._control.put_preset(after, before.version)))

    async def delete(self, request: Request) -> Response:
        name = request.path_params["name"]
        await self._control.delete_preset(name)
        return json_response(DeletedPreset(name=name, deleted=True))

    async def duplicate(self, request: Request) -> Response:
        body = await read_body(request, DuplicateBody)
        source = await self._named(request)
        copy = Preset(name=body.name, model=source.model, settings=source.settings)
        return json_response(preset_object(await self._control.put_preset(copy, 0)))

    async def diff(self, request: Request) -> Response:
        """From another preset, or from an earlier version of itself."""
        after = self._require(request.path_params["name"])
        other, version = request.query_params.get("with"), request.query_params.get("version")
        if (other is None) == (version is None):
            raise InvalidRequest(
                "Set either with, the name of another preset, or version, an earlier version of this one.", param="with"
            )
        before = self._require(other) if other is not None else await self._version(after.name, version or "")
        return json_response(preset_diff(before, after))

    async def export(self, request: Request) -> Response:
        preset = await self._named(request)
        form = request.query_params.get("format", "")
        if form not in ("", LMSTUDIO):
            raise InvalidRequest(f"format: must be {LMSTUDIO}, or be left out for our own format", param="format")
        return json_response(write_file(preset) if form else exported(preset))

    async def import_file(self, request: Request) -> Response:
        """An exported preset, or an LM Studio *.preset.json."""
        body = await read_body(request, PresetImportBody)
        name, model, settings, ignored = read_import(body.file)
        if not (body.name or name):
            raise InvalidRequest("The file has no name; set the name of the preset.", param="name")
        preset = Preset(name=body.name or name, model=model, settings=settings)
        written = await self._control.put_preset(preset, None if body.replace else 0)
        reply: ImportedPreset = {**preset_object(written), "ignored": ignored}
        return json_response(reply)

    async def set_default(self, request: Request) -> Response:
        body = await read_body(request, DefaultPresetBody)
        snapshot = self._watcher.known()
        found = find_name(body.model, snapshot.models, ())
        key = found.id if isinstance(found, InstanceName) else found.key
        model = snapshot.models[key]
        if body.preset is not None:
            find_preset(body.preset, model, snapshot)
        await self._control.set_default_preset(key, body.preset)
        return json_response(DefaultPreset(model=key, default_preset=body.preset))

    async def settings(self, request: Request) -> Response:
        """The settings of a request that sets none, with their origins."""
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
        """The preset in the path, at the version in the query, if set."""
        preset = self._require(request.path_params["name"])
        version = request.query_params.get("version")
        return preset if version is None else await self._version(preset.name, version)

    async def _version(self, name: str, version: str) -> Preset:
        for preset in await self._control.preset_versions(name):
            if str(preset.version) == version:
                return preset
        raise NotFound(f'There is no version {version[:20]} of "{name}".', param="version")


def settings_of(body: PresetBody) -> Settings:
    return check_settings({group: values for group in GROUPS if (values := getattr(body, group))})


def read_import(file: Json) -> tuple[str, str | None, Settings, list[str]]:
    """Name, model, settings, and the keys that have no meaning here. Raises InvalidRequest."""
    if "operation" in file or (isinstance(load := file.get("load"), dict) and "fields" in load):
        read = read_file(file)
        return read.name, None, read.settings, list(read.ignored)
    ours = {name: file[name] for name in (*GROUPS, "model") if name in file}
    body = parse(json_bytes(ours, "file"), PresetBody)
    name = file.get("name")
    known = {*GROUPS, "model", "name", "version", "changed_at"}
    return (
        name if isinstance(name, str) else "",
        body.model,
        settings_of(body),
        [key for key in file if key not in known],
    )
