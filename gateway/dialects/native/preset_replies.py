"""What the routes of presets and settings return: the types, and builders of them. Pure."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from atelier.errors import NotFound
from atelier.json_types import Json
from atelier.names import InstanceName, find_name
from atelier.settings import Value
from atelier.settings.preset import Preset, difference
from gateway.core.call_plan import default_preset, effective, find_preset, layers_of, load_values
from gateway.fleet.snapshot import LOADED, Instance, Model, Snapshot


class PresetFile(TypedDict):
    name: str
    model: str | None
    load: Json
    prompt: Json
    inference: Json


class PresetObject(PresetFile):
    version: int
    changed_at: float


class PresetList(TypedDict):
    presets: list[PresetObject]


class PresetVersions(TypedDict):
    versions: list[PresetObject]


class ImportedPreset(PresetObject):
    ignored: Annotated[list[str], Field(description="Keys of the file that have no meaning here.")]


class FieldList(TypedDict):
    fields: Annotated[list[Json], Field(description="Each an LM Studio key and its value.")]


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
        Field(title="ExportedPreset", description="In LM Studio's format if the query asks for it."),
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
    before: object
    after: object


class PresetDiff(TypedDict):
    before: PresetSide
    after: PresetSide
    differences: list[Difference]


class DefaultPreset(TypedDict):
    model: str
    default_preset: str | None


class SettingValue(TypedDict):
    value: object
    origin: str


class ModelSettings(TypedDict):
    model: str
    instance: str | None
    preset: str | None
    default_preset: str | None
    settings: dict[str, SettingValue]


def exported(preset: Preset) -> PresetFile:
    settings = preset.settings
    return {
        "name": preset.name,
        "model": preset.model,
        "load": _with_text_keys(settings.get("load", {})),
        "prompt": _with_text_keys(settings.get("prompt", {})),
        "inference": _with_text_keys(settings.get("inference", {})),
    }


def preset_object(preset: Preset) -> PresetObject:
    return {**exported(preset), "version": preset.version, "changed_at": preset.changed_at}


def preset_diff(before: Preset, after: Preset) -> PresetDiff:
    return {
        "before": {"name": before.name, "version": before.version},
        "after": {"name": after.name, "version": after.version},
        "differences": [
            {"group": each.group, "setting": each.name, "before": each.before, "after": each.after}
            for each in difference(before, after)
        ],
    }


def settings_object(snapshot: Snapshot, name: str, instance_id: str | None, preset_name: str | None) -> ModelSettings:
    """The settings of a request that sets none, with their origins. Raises ModelNotFound, PresetNotFound, NotFound."""
    model, instance = _find_instance(name, instance_id, snapshot)
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


def value_object(value: Value) -> SettingValue:
    shown = _with_text_keys({"value": value.value})["value"] if isinstance(value.value, dict) else value.value
    return {"value": shown, "origin": value.origin}


def _find_instance(name: str, instance_id: str | None, snapshot: Snapshot) -> tuple[Model, Instance | None]:
    """The model, and the instance whose own settings apply: the named one, or the only one that is loaded."""
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


def _with_text_keys(values: Mapping[str, object]) -> Json:
    """With the integer keys of mappings such as `logit_bias` as text, which JSON requires."""
    return {
        name: {str(key): each for key, each in value.items()} if isinstance(value, dict) else value
        for name, value in values.items()
    }
