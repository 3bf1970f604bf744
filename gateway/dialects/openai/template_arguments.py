"""What a request gives to the chat template beside its messages and tools. Pure."""

import math
import re
from collections.abc import Mapping
from typing import Any

import orjson

from atelier.errors import InvalidRequest

FIELD = "chat_template_kwargs"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
MOST_ARGUMENTS = 64
MOST_BYTES = 16_384  # of all of them, as JSON
LARGEST_NUMBER = 2**63 - 1
# What the server gives, and what templates call: an argument in its place would make another template of it.
RESERVED = frozenset(
    {
        "messages",
        "tools",
        "add_generation_prompt",
        "bos_token",
        "eos_token",
        "raise_exception",
        "strftime_now",
        "range",
        "dict",
        "lipsum",
        "cycler",
        "joiner",
        "namespace",
    }
)


def template_arguments(effort: str | None, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is given by name is stronger."""
    return {**effort_arguments(effort), **checked_arguments(given or {})}


def effort_arguments(effort: str | None) -> dict[str, Any]:
    """Templates know one or the other name of it."""
    return {} if effort is None else {"reasoning_effort": effort, "enable_thinking": effort != "none"}


def checked_arguments(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """InvalidRequest names the argument that a template is not to have."""
    if len(given) > MOST_ARGUMENTS:
        raise InvalidRequest(f"{FIELD}: may have {MOST_ARGUMENTS} entries at most", param=FIELD)
    for name, value in given.items():
        path = f"{FIELD}.{name[:64]}"
        if not NAME.fullmatch(name):
            raise InvalidRequest(f"{path}: is no name that a template can use", param=path)
        if name in RESERVED:
            raise InvalidRequest(f"{path}: this name is the server's own", param=path)
        if not is_plain(value) and not (isinstance(value, list) and all(map(is_plain, value))):
            raise InvalidRequest(f"{path}: must be text, a number, true, false, null, or a list of these", param=path)
    if len(orjson.dumps(given)) > MOST_BYTES:
        raise InvalidRequest(f"{FIELD}: may have {MOST_BYTES} bytes at most", param=FIELD)
    return given


def is_plain(value: Any) -> bool:
    match value:
        case None | str() | bool():
            return True
        case int():
            return abs(value) <= LARGEST_NUMBER
        case float():
            return math.isfinite(value)
    return False
