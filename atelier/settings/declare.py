"""The words in which a setting is declared: a dataclass field that carries its facts."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a setting beside its name, type and default."""

    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    max_items: int | None = None
    longest: int | None = None  # characters, of a list's entry or of the text itself
    form: str = ""  # how a list's entry is written, where it has parts
    unit: str = ""
    llama: str = ""  # its llama.cpp parameter
    openai: str = ""  # its name in OpenAI's dialect, "" when it has none
    lmstudio: str = ""  # its name in LM Studio's REST API
    preset_key: str = ""  # its key in LM Studio's *.preset.json


def setting(default: Any, description: str, **facts: Any) -> Any:
    """A dataclass field for one setting; `facts` are those of `Facts`."""
    metadata = {"facts": Facts(description, **facts)}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
