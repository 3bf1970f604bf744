"""What request bodies have in common: validation, LM Atelier's own fields, and how a union's branch is chosen.

Tags of branches are in parentheses because error paths omit those.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Discriminator, Field

from atelier.submission import LONGEST_TIMEOUT, MOST_PRIORITY

LONGEST_TTL = 10 * 365 * 86_400  # seconds
NEITHER = "(neither)"

Ttl = Annotated[float, Field(ge=-1, le=LONGEST_TTL, allow_inf_nan=False)]
PresetName = Annotated[str, Field(max_length=200)]
PRESET = "Provides the settings that the request omits."
TTL_IF_LOADED = "If this request loads the model: idle seconds until it is unloaded; -1: never."


class Body(BaseModel):
    """Unknown fields are ignored; values of the wrong type are rejected."""

    model_config = ConfigDict(strict=True, extra="ignore")


class ServingFields(Body):
    """How a generation is served: LM Atelier's own fields, under one name in every dialect."""

    preset: PresetName | None = Field(None, description=PRESET)
    ttl: Ttl | None = Field(None, description=TTL_IF_LOADED)
    priority: Annotated[int, Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY)] | None = Field(
        None, description="Requests with a lower value start earlier. Default: 0."
    )
    timeout: Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT)] | None = Field(
        None, description="Seconds until an unfinished request fails."
    )


def by_json_type(tags: Mapping[type, str], error: str, message: str) -> Discriminator:
    """Chooses by the value's type. `error` and `message`: of a value of any other type."""
    return Discriminator(
        lambda value: tags.get(type(value), NEITHER), custom_error_type=error, custom_error_message=message
    )


def by_type_field(*types: str) -> Discriminator:
    """Chooses by an object's `type`: "(text)" for "text", and "(other)" for any type that is not listed."""

    def tag(value: object) -> str:
        kind = value.get("type") if isinstance(value, dict) else None
        return f"({kind})" if isinstance(kind, str) and kind in types else "(other)"

    return Discriminator(tag)
