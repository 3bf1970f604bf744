"""How a setting is declared: a dataclass field that carries its facts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

SettingValue = bool | int | float | str | Sequence[str] | Sequence[float] | Mapping[int, float]


@dataclasses.dataclass(frozen=True, slots=True)
class SettingFacts:
    """A setting's description, bounds and other names. Its own name, type and default are the field's."""

    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    max_items: int | None = None
    longest: int | None = None  # characters, of the text or of each entry of a list
    form: str = ""  # syntax of a list's entry
    unit: str = ""
    llama: str = ""  # its llama.cpp parameter
    openai: str = ""  # its name in OpenAI's API, "" if it has none
    lmstudio: str = ""  # its name in LM Studio's REST API
    preset_key: str = ""  # its key in LM Studio's *.preset.json


def setting(default: SettingValue | None, description: str, **facts: Any) -> Any:
    """A dataclass field for one setting; `facts` are keyword arguments of `Facts`."""
    metadata = {"facts": SettingFacts(description, **facts)}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
