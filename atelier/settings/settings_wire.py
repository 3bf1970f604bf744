"""Settings to protobuf and back. Unset stays unset in both directions."""

import dataclasses
from collections.abc import Mapping

from atelier.json_types import Json
from atelier.settings.groups import Inference, Load
from atelier.settings.settings_table import TABLE
from protos.settings_pb2 import LoadSettings, SamplingSettings


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
