"""JSON as Python objects, where this project does not define its shape: a client's schema, a template's variables."""

import json
from typing import Any

import orjson

from atelier.errors import InvalidRequest

Json = dict[str, Any]
"""A JSON object. Shapes that this project defines are TypedDicts or dataclasses instead."""


def json_text(value: object) -> str:
    """Compact JSON. Unlike orjson, the standard library's encoder accepts integers of any size, as schemas may have."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_bytes(value: object, field: str, path: str | None = None) -> bytes:
    """A value of a request as JSON. Raises InvalidRequest for an integer of more than 64 bits.

    `field`: of the request. `path`: of the value; by default the field.
    """
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise InvalidRequest(f"{path or field}: {error}", param=field) from None
