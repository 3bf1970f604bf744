"""LM Studio's `*.preset.json`: read into a preset's settings, and written from them. Pure.

    {"identifier": "@local:precise", "name": "Precise", "changed": true,
     "operation": {"fields": [{"key": "llm.prediction.temperature", "value": 0.1}, ...]},
     "load": {"fields": [{"key": "llm.load.contextLength", "value": 8192}, ...]}}

Optional numbers are wrapped as {"checked": true, "value": 40}, a template as
{"type": "jinja", "jinjaPromptTemplate": {"template": "..."}}.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from atelier.errors import InvalidRequest
from atelier.json_types import Json
from atelier.settings.declaration import SettingValue
from atelier.settings.preset import Preset, check_settings
from atelier.settings.settings_table import TABLE, Group, Setting

SECTIONS: Mapping[str, tuple[Group, ...]] = {"operation": ("prompt", "inference"), "load": ("load",)}
WRAPPED = frozenset(
    {
        *("min_p", "top_p", "repeat_penalty", "presence_penalty", "frequency_penalty", "max_tokens", "seed"),
        *("k_type", "v_type", "load_seed", "rope_freq_base", "rope_freq_scale", "reasoning_budget"),
    }
)
TEMPLATE = "chat_template"
BY_KEY: Mapping[str, Setting] = {
    row.facts.preset_key: row for rows in TABLE.values() for row in rows.values() if row.facts.preset_key
}


@dataclass(frozen=True, slots=True)
class Read:
    """The content of a file, and its keys that are unknown here."""

    name: str
    settings: dict[Group, Json]
    ignored: tuple[str, ...]


def read_file(file: Mapping[str, object]) -> Read:
    """Raises InvalidRequest when it is not a preset file, or when one of its values is not valid."""
    found: dict[Group, Json] = {}
    ignored: list[str] = []
    for key, value in _fields(file):
        if (row := BY_KEY.get(key)) is None:
            ignored.append(key)
        elif (plain := plain_value(row, value)) is not None:
            found.setdefault(row.group, {})[row.name] = plain
    name = file.get("name")
    return Read(name if isinstance(name, str) else "", check_settings(found), tuple(ignored))


def write_file(preset: Preset) -> Json:
    """The preset as LM Studio imports it. Settings without a key there are left out."""
    return {
        "identifier": f"@local:{preset.name}",
        "name": preset.name,
        "changed": False,
        **{section: {"fields": list(_written(preset, groups))} for section, groups in SECTIONS.items()},
    }


def _fields(file: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    sections = [file.get(section) for section in SECTIONS]
    if not any(isinstance(section, Mapping) for section in sections):
        raise InvalidRequest("The file is not an LM Studio preset: it has neither operation nor load.", param="file")
    for section in sections:
        fields = section.get("fields", []) if isinstance(section, Mapping) else []
        for field in fields if isinstance(fields, list) else []:
            if not isinstance(field, Mapping) or not isinstance(field.get("key"), str):
                raise InvalidRequest("Each field of the preset must be {key, value}.", param="file")
            yield field["key"], field.get("value")


def plain_value(row: Setting, value: object) -> object:
    """A field's value without LM Studio's wrapping. None: unset."""
    if row.name == TEMPLATE:
        jinja = value.get("jinjaPromptTemplate") if isinstance(value, Mapping) else None
        return jinja.get("template") if isinstance(jinja, Mapping) else None
    if isinstance(value, Mapping) and "checked" in value:
        return value.get("value") if value["checked"] else None
    if row.name == "logit_bias" and isinstance(value, list):
        try:
            return {int(token): float(bias) for token, bias in value}
        except (TypeError, ValueError, OverflowError):
            raise InvalidRequest("logit_bias must be a list of [token, bias]", param="inference.logit_bias") from None
    return value


def _written(preset: Preset, groups: tuple[Group, ...]) -> Iterator[Json]:
    for group in groups:
        for name, value in with_cache_types(preset.group(group)).items():
            if key := TABLE[group][name].facts.preset_key:
                yield {"key": key, "value": field_value(name, value)}


def with_cache_types(values: Mapping[str, SettingValue]) -> dict[str, SettingValue]:
    """With kv_type as LM Studio has it: a type of the keys and one of the values."""
    both = values.get("kv_type")
    return {**values} if both is None else {"k_type": both, "v_type": both, **values}


def field_value(name: str, value: SettingValue) -> object:
    """The inverse of `plain_value`."""
    if name == TEMPLATE:
        return {"type": "jinja", "jinjaPromptTemplate": {"template": value}, "stopStrings": []}
    if isinstance(value, Mapping):  # logit_bias
        return [[token, bias] for token, bias in value.items()]
    return {"checked": True, "value": value} if name in WRAPPED else value
