"""A preset: a named set of load, prompt and inference settings, and how two of them differ. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import ValidationError

from atelier.errors import InvalidRequest
from atelier.names import near_hint
from atelier.settings.settings_schema import GROUP_MODELS
from atelier.settings.settings_table import TABLE, Group

Settings = Mapping[Group, Mapping[str, Any]]
"""By group, then by setting. What is not set is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One version of a preset."""

    name: str
    model: str | None = None  # key of the one that it is meant for; None: any
    settings: Settings = field(default_factory=dict)
    version: int = 1
    changed_at: float = 0.0  # seconds since the epoch

    def group(self, group: Group) -> Mapping[str, Any]:
        return self.settings.get(group, {})

    @property
    def origin(self) -> str:
        """As it is named where settings come from it."""
        return f"preset {self.name}"


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting that two presets have not in common. None: not set."""

    group: Group
    name: str
    before: Any
    after: Any


def check_settings(given: Mapping[Any, Mapping[str, Any]]) -> dict[Group, dict[str, Any]]:
    """Those that are set, if all are known and within their bounds; InvalidRequest names the first that is not."""
    checked: dict[Group, dict[str, Any]] = {}
    for group, values in given.items():
        if group not in TABLE:
            raise InvalidRequest(f"{group}: there is no such group of settings: {', '.join(TABLE)}.", param=group)
        if unknown := [name for name in values if name not in TABLE[group]]:
            param = f"{group}.{unknown[0][:100]}"
            raise InvalidRequest(
                f"{param}: there is no such setting.{near_hint(unknown[0], TABLE[group])}", param=param
            )
        if found := _checked(group, values):
            checked[group] = found
    return checked


def _checked(group: Group, values: Mapping[str, Any]) -> dict[str, Any]:
    try:
        # As JSON, in which keys that are numbers are text, wherever the values come from.
        text = orjson.dumps(dict(values), option=orjson.OPT_NON_STR_KEYS)
        return GROUP_MODELS[group].model_validate_json(text).model_dump(exclude_none=True)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join([group, *map(str, fault["loc"])])
        raise InvalidRequest(f"{param}: {fault['msg']}", param=param) from None
    except TypeError as error:  # a number of more than 64 bits
        raise InvalidRequest(f"{group}: {error}", param=group) from None


def changed(preset: Preset, changes: Mapping[Any, Mapping[str, Any]]) -> dict[Group, dict[str, Any]]:
    """The preset's settings with these changed; None takes a setting out."""
    groups = dict.fromkeys([*preset.settings, *changes])
    return check_settings({group: {**preset.settings.get(group, {}), **changes.get(group, {})} for group in groups})


def difference(before: Preset, after: Preset) -> list[Difference]:
    """In the table's order."""
    return [
        Difference(group, name, old, new)
        for group, rows in TABLE.items()
        for name in rows
        if (old := before.group(group).get(name)) != (new := after.group(group).get(name))
    ]


def settings_json(settings: Settings) -> bytes:
    """As JSON; keys that are numbers become text, as they must there."""
    return orjson.dumps(settings, option=orjson.OPT_NON_STR_KEYS)


def settings_from_json(text: bytes) -> dict[Group, dict[str, Any]]:
    """What `settings_json` wrote. Unknown settings, of another version of this program, are left out."""
    groups = orjson.loads(text)
    return {
        group: GROUP_MODELS[group].model_validate_json(orjson.dumps(values)).model_dump(exclude_none=True)
        for group, values in groups.items()
        if group in GROUP_MODELS and values
    }
