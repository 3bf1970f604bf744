"""The settings as a table, which everything else derives from what the group classes declare; and on the wire."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, cast, get_type_hints

from atelier.errors import InvalidRequest
from atelier.json_types import Json
from atelier.settings.declaration import SettingFacts, SettingValue
from atelier.settings.groups import Inference, Load, Prompt
from protos.settings_pb2 import LoadSettings, SamplingSettings

Group = Literal["load", "prompt", "inference"]
GROUPS: Mapping[Group, type[Load | Prompt | Inference]] = MappingProxyType(
    {"load": Load, "prompt": Prompt, "inference": Inference}
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row."""

    name: str
    group: Group
    type: Any  # as annotated: int | None, list[str], ...
    default: SettingValue | None
    facts: SettingFacts

    def check(self, value: SettingValue | None) -> SettingValue | None:
        """The value if it is within the bounds. Raises InvalidRequest that names the setting."""
        if value is None:
            return None
        for number in _numbers(value):
            self._check_number(number)
        if self.facts.choices and value not in self.facts.choices:
            raise InvalidRequest(f"{self.name} must be one of {', '.join(self.facts.choices)}", param=self.name)
        if self.facts.max_items is not None and isinstance(value, Collection) and len(value) > self.facts.max_items:
            raise InvalidRequest(f"{self.name} takes at most {self.facts.max_items} entries", param=self.name)
        return value

    def _check_number(self, number: float) -> None:
        low, high = self.facts.minimum, self.facts.maximum
        if not math.isfinite(number) or (low is not None and number < low) or (high is not None and number > high):
            raise InvalidRequest(f"{self.name} must be {self.bounds()}, not {number}", param=self.name)

    def bounds(self) -> str:
        """The bounds in words: "between 0 and 1", "at least 1"."""
        low, high = (_plain(bound) for bound in (self.facts.minimum, self.facts.maximum))
        if low and high:
            return f"between {low} and {high}"
        if low:
            return f"at least {low}"
        return f"at most {high}" if high else "a finite number"


def _plain(bound: float | None) -> str:
    if bound is None:
        return ""
    return str(int(bound)) if float(bound).is_integer() else str(bound)


def _numbers(value: SettingValue) -> list[float]:
    if isinstance(value, bool):
        return []
    if isinstance(value, (int, float)):
        return [value]
    if isinstance(value, Mapping):
        return [each for each in value.values() if isinstance(each, (int, float))]
    if isinstance(value, (list, tuple)):
        return [each for each in value if isinstance(each, (int, float))]
    return []


def _rows(group: Group) -> dict[str, Setting]:
    hints = get_type_hints(GROUPS[group])
    blank = GROUPS[group]()
    return {
        field.name: Setting(
            field.name,
            group,
            hints[field.name],
            getattr(blank, field.name),
            cast(SettingFacts, field.metadata["facts"]),
        )
        for field in dataclasses.fields(GROUPS[group])
    }


TABLE: Mapping[Group, Mapping[str, Setting]] = MappingProxyType({group: _rows(group) for group in GROUPS})


def rows_of(kind: type[Load | Prompt | Inference]) -> Mapping[str, Setting]:
    """The table's rows for a group's dataclass."""
    return next(TABLE[group] for group, declared in GROUPS.items() if declared is kind)


def load_message(values: Load | Mapping[str, object]) -> LoadSettings:
    return LoadSettings(**_set_fields(values))


def sampling_message(values: Inference | Mapping[str, object], stop: list[str] | None = None) -> SamplingSettings:
    """`stop` is a prompt setting, but travels with the sampling settings."""
    return SamplingSettings(**_set_fields(values), stop=stop or [])


def load_values(message: LoadSettings) -> Json:
    return _present(message, list(TABLE["load"]))


def sampling_values(message: SamplingSettings) -> Json:
    """The settings that the message sets, `stop` included."""
    return _present(message, [*TABLE["inference"], "stop"])


def sampling_settings(message: SamplingSettings) -> tuple[Inference, list[str]]:
    """The sampling settings, with defaults where the message sets none, and the stop strings."""
    values = sampling_values(message)
    stop = values.pop("stop", [])
    return Inference(**values), stop


def _set_fields(values: Load | Inference | Mapping[str, object]) -> Json:
    if not isinstance(values, Mapping):
        values = {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
    return {name: value for name, value in values.items() if value is not None}


def _present(message: LoadSettings | SamplingSettings, names: list[str]) -> Json:
    found: Json = {}
    for name in names:
        value = getattr(message, name)
        if hasattr(value, "items"):
            value = dict(value)
        elif hasattr(value, "extend"):
            value = list(value)
        elif not message.HasField(name):  # type: ignore[arg-type]
            continue
        if value not in ([], {}):
            found[name] = value
    return found
