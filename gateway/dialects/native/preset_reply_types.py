"""The replies of the routes of presets, and of the settings that they make."""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from gateway.dialects.documented import KEY, MODEL, Documented
from gateway.dialects.native.preset_routes import LMSTUDIO


class PresetFile(TypedDict):
    name: str
    model: str | None
    load: dict[str, Any]
    prompt: dict[str, Any]
    inference: dict[str, Any]


class PresetObject(PresetFile):
    version: int
    changed_at: float


class PresetList(TypedDict):
    presets: list[PresetObject]


class PresetVersions(TypedDict):
    versions: list[PresetObject]


class ImportedPreset(PresetObject):
    ignored: Annotated[list[str], Field(description="Keys of the file that mean nothing here.")]


class FieldList(TypedDict):
    fields: Annotated[list[dict[str, Any]], Field(description="A key of LM Studio's and a value each.")]


class LMStudioPreset(TypedDict):
    identifier: str
    name: str
    changed: Literal[False]
    operation: FieldList
    load: FieldList


ExportedPreset = TypeAliasType(
    "ExportedPreset",
    Annotated[
        PresetFile | LMStudioPreset,
        Field(title="ExportedPreset", description="LM Studio's form where the query asks for it."),
    ],
)


class DeletedPreset(TypedDict):
    name: str
    deleted: Literal[True]


class PresetSide(TypedDict):
    name: str
    version: int


class Difference(TypedDict):
    group: str
    setting: str
    before: Any
    after: Any


class PresetDiff(TypedDict):
    before: PresetSide
    after: PresetSide
    differences: list[Difference]


class DefaultPreset(TypedDict):
    model: str
    default_preset: str | None


class SettingValue(TypedDict):
    value: Any
    origin: str


class ModelSettings(TypedDict):
    model: str
    instance: str | None
    preset: str | None
    default_preset: str | None
    settings: dict[str, SettingValue]


VERSION = {"version": {"type": "integer", "minimum": 1, "description": "The newest, where none is named."}}
PRESET_SETTINGS = {"load": {}, "prompt": {"system_prompt": "Be brief."}, "inference": {"temperature": 0.2}}
PRESET = {"name": "precise", "model": None, **PRESET_SETTINGS, "version": 1, "changed_at": 1795588000.0}

DOCUMENTED = {
    "GET /api/v1/presets": Documented(reply=PresetList, example={"presets": [PRESET]}),
    "POST /api/v1/presets/import": Documented(
        reply=ImportedPreset,
        request={"file": {"name": "precise", **PRESET_SETTINGS}},
        example={**PRESET, "ignored": []},
    ),
    "GET /api/v1/presets/{name}": Documented(reply=PresetObject, query=VERSION, example=PRESET),
    "PUT /api/v1/presets/{name}": Documented(reply=PresetObject, request=PRESET_SETTINGS, example=PRESET),
    "PATCH /api/v1/presets/{name}": Documented(
        reply=PresetObject, request={"inference": {"temperature": 0.2}}, example=PRESET
    ),
    "DELETE /api/v1/presets/{name}": Documented(reply=DeletedPreset, example={"name": "precise", "deleted": True}),
    "GET /api/v1/presets/{name}/versions": Documented(reply=PresetVersions, example={"versions": [PRESET]}),
    "GET /api/v1/presets/{name}/diff": Documented(
        reply=PresetDiff,
        query={**VERSION, "with": {"type": "string", "description": "Another preset: this, or a version of its own."}},
        example={
            "before": {"name": "precise", "version": 1},
            "after": {"name": "precise", "version": 2},
            "differences": [{"group": "inference", "setting": "temperature", "before": 0.2, "after": 0.5}],
        },
    ),
    "GET /api/v1/presets/{name}/export": Documented(
        reply=ExportedPreset,
        query={**VERSION, "format": {"enum": [LMSTUDIO]}},
        example={"name": "precise", "model": None, **PRESET_SETTINGS},
    ),
    "POST /api/v1/presets/{name}/duplicate": Documented(
        reply=PresetObject, query=VERSION, request={"name": "copy"}, example={**PRESET, "name": "copy"}
    ),
    "POST /api/v1/models/default-preset": Documented(
        reply=DefaultPreset,
        request={"model": MODEL, "preset": "precise"},
        example={"model": KEY, "default_preset": "precise"},
    ),
    "GET /api/v1/models/{id}/settings": Documented(
        reply=ModelSettings,
        query={"instance": {"type": "string"}, "preset": {"type": "string"}},
        example={
            "model": KEY,
            "instance": None,
            "preset": None,
            "default_preset": "precise",
            "settings": {"temperature": {"value": 0.2, "origin": "default preset precise"}},
        },
    ),
}
