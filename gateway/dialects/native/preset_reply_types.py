"""The replies of the routes of presets, and of the settings that they make."""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict


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
