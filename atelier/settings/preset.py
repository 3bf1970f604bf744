"""A preset: a named set of load, prompt and inference settings, and how two of them differ. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import ValidationError

from atelier.errors import InvalidRequest
from atelier.json_types import Json
from atelier.names import near_hint
from atelier.settings.declaration import SettingValue
from atelier.settings.settings_schema import GROUP_MODELS
from atelier.settings.settings_table import TABLE, Group

Settings = Mapping[Group, Mapping[str, SettingValue]]
"""By group, then by name. Unset settings are absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One version of a preset."""

    name: str
    model: str | None = None  # key of the only model it applies to; None: any
    settings: Settings = field(default_factory=dict)
    version: int = 1
    changed_at: float = 0.0  # seconds since the epoch

    def group(self, group: Group) -> Mapping[str, SettingValue]:
        return self.settings.get(group, {})

    @property
    def origin(self) -> str:
        """The origin of settings that come from this preset."""
        return f"preset {self.name}"


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting in which two presets differ. None: unset."""

    group: Group
    name: str
    before: SettingValue | None
    after: SettingValue | None


def check_settings(given: Mapping[Any, Mapping[str, object]]) -> dict[Group, Json]:
    """The settings that are set, by group. Raises InvalidRequest for the first unknown or invalid one."""
    checked: dict[Group, Json] = {}
    for group, values in given.items():
        if group not in TABLE:
            raise InvalidRequest(f"{group}: unknown group of settings; the groups are {', '.join(TABLE)}.", param=group)
        if unknown := [name for name in values if name not in TABLE[group]]:
            param = f"{group}.{unknown[0][:100]}"
            raise InvalidRequest(f"{param}: unknown setting.{near_hint(unknown[0], TABLE[group])}", param=param)
        if found := _checked(group, values):
            checked[group] = found
    return checked


def _checked(group: Group, values: Mapping[str, object]) -> Json:
    try:
        # Validated as JSON, so that mappings by number are read from text keys, wherever the values come from.
        text = orjson.dumps(dict(values), option=orjson.OPT_NON_STR_KEYS)
        return GROUP_MODELS[group].model_validate_json(text).model_dump(exclude_none=True)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join([group, *map(str, fault["loc"])])
        raise InvalidRequest(f"{param}: {fault['msg']}", param=param) from None
    except TypeError as error:  # an integer of more than 64 bits
        raise InvalidRequest(f"{group}: {error}", param=group) from None


def changed(preset: Preset, changes: Mapping[Any, Mapping[str, object]]) -> dict[Group, Json]:
    """The preset's settings with these changes; None unsets a setting. Raises InvalidRequest."""
    groups = dict.fromkeys([*preset.settings, *changes])
    return check_settings({group: {**preset.settings.get(group, {}), **changes.get(group, {})} for group in groups})


def difference(before: Preset, after: Preset) -> list[Difference]:
    """In the order of the table."""
    return [
        Difference(group, name, old, new)
        for group, rows in TABLE.items()
        for name in rows
        if (old := before.group(group).get(name)) != (new := after.group(group).get(name))
    ]


def settings_json(settings: Settings) -> bytes:
    """As JSON, in which keys that are numbers become text."""
    return orjson.dumps(settings, option=orjson.OPT_NON_STR_KEYS)


def settings_from_json(text: bytes) -> dict[Group, Json]:
    """What `settings_json` wrote. Unknown settings, from another version of this program, are ignored."""
    groups = orjson.loads(text)
    return {
        group: GROUP_MODELS[group].model_validate_json(orjson.dumps(values)).model_dump(exclude_none=True)
        for group, values in groups.items()
        if group in GROUP_MODELS and values
    }
