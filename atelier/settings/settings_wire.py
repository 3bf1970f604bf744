"""Settings to protobuf and back. Unset stays unset in both directions."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from atelier.settings.groups import Inference, Load
from atelier.settings.settings_table import TABLE
from protos.settings_pb2 import LoadSettings, SamplingSettings


def load_message(values: Load | Mapping[str, Any]) -> LoadSettings:
    return LoadSettings(**_set_fields(values))


def sampling_message(values: Inference | Mapping[str, Any], stop: list[str] | None = None) -> SamplingSettings:
    """`stop` comes from the prompt group and travels with the sampling settings."""
    return SamplingSettings(**_set_fields(values), stop=stop or [])


def load_values(message: LoadSettings) -> dict[str, Any]:
    return _present(message, list(TABLE["load"]))


def sampling_values(message: SamplingSettings) -> dict[str, Any]:
    """What the message sets, `stop` included."""
    return _present(message, [*TABLE["inference"], "stop"])


def sampling_settings(message: SamplingSettings) -> tuple[Inference, list[str]]:
    """The sampling settings, defaults filled in, and the stop strings."""
    values = sampling_values(message)
    stop = values.pop("stop", [])
    return Inference(**values), stop


def _set_fields(values: Load | Inference | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        values = {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
    return {name: value for name, value in values.items() if value is not None}


def _present(message: LoadSettings | SamplingSettings, names: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
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
