"""Arguments that a model writes as plain text, as JSON of the type that the tool's schema says."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from worker.output.json_text import JsonText

DEEPEST = 16  # references and unions on the way to a type


def typed_json(text: str, name: str, parameters: Mapping[str, Any], is_string: bool | None = None) -> str:
    """JSON text of the value: a string, unless the schema wants something else and the text is that.

    `is_string`: what the model says it is, which counts where the schema leaves it open.
    """
    properties = parameters.get("properties")
    schema = properties.get(name) if isinstance(properties, dict) else None
    types = set(_types(schema, parameters, DEEPEST))
    stripped = text.strip()
    if is_string and (not types or "string" in types):
        return json.dumps(text, ensure_ascii=False)
    if is_string is False and types != {"string"} and _is_json(stripped):
        return stripped
    if stripped.lower() in ("true", "false") and "boolean" in types:
        return stripped.lower()
    if stripped.lower() in ("null", "none") and "null" in types:
        return "null"
    if "string" in types and not _is_structure(stripped, types):
        return json.dumps(text, ensure_ascii=False)
    return stripped if _is_json(stripped) else json.dumps(text, ensure_ascii=False)


def _is_structure(text: str, types: set[str]) -> bool:
    wanted = {"{": "object", "[": "array"}.get(text[:1])
    return wanted in types and _is_json(text)


def _is_json(text: str) -> bool:
    """One value and nothing after it. A comma ends a number, which has no end of its own."""
    value = JsonText()
    piece, end = value.take(text + ",", 0)
    return value.complete and end == len(text) and piece == text


def _types(schema: Any, root: Mapping[str, Any], depth: int) -> Iterator[str]:
    if not isinstance(schema, dict) or not depth:
        return
    if isinstance(reference := schema.get("$ref"), str):
        yield from _types(referred(reference, root), root, depth - 1)
    given = schema.get("type", [])
    yield from (kind for kind in (given if isinstance(given, list) else [given]) if isinstance(kind, str))
    values = schema.get("enum", [])
    for value in [*(values if isinstance(values, list) else []), *([schema["const"]] if "const" in schema else [])]:
        yield kind_of(value)
    for union in ("anyOf", "oneOf", "allOf"):
        for option in schema[union] if isinstance(schema.get(union), list) else []:
            yield from _types(option, root, depth - 1)


def kind_of(value: Any) -> str:
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}
    return kinds.get(type(value), "null")


def referred(reference: str, root: Mapping[str, Any]) -> Any:
    place: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        place = place.get(step) if isinstance(place, Mapping) else None
    return place
