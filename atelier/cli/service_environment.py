"""The configuration as the services get it: by environment variables, which other users cannot read."""

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from atelier.config import Config

PREFIX = "ATELIER_"


def service_environment(config: Config, inherited: Mapping[str, str]) -> dict[str, str]:
    """What both services need: `inherited`, with every field of the configuration as ATELIER_<FIELD>.

    The log is JSON, which `serve` reads; modules of the working directory are not importable there.
    A variable of a field is looked for in any case, as the services would read it.
    """
    told = {PREFIX + name.upper(): as_text(getattr(config, name)) for name in Config.model_fields}
    kept = {name: value for name, value in inherited.items() if name.upper() not in told}
    fields = {name: text for name, text in told.items() if text}
    return {**kept, **fields, f"{PREFIX}LOG_FORMAT": "json", "PYTHONSAFEPATH": "1"}


def without_api_key(environment: Mapping[str, str]) -> dict[str, str]:
    """For the registry, and so for the workers that it starts: they never see a client's key."""
    return {name: value for name, value in environment.items() if name.upper() != f"{PREFIX}API_KEY"}


def as_text(value: Any) -> str:
    """A field's value as its variable has it; "" when it is not set, as an empty variable means."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, list) else str(value)
