"""Arguments that a model writes as plain text, as JSON of the type that the tool's schema says."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from worker.output.json_text import JsonText

DEEPEST = 16  # references and unions on the way to a type


def typed_json(text: str, name: str, parameters: Mapping[str, Any], is_string: bool | None = None) -> str:
    """JSON text of the value of a parameter."""
    return as_json(text, member_schema(parameters, name, parameters), parameters, is_string)


def as_json(text: str, schema: Any, root: Mapping[str, Any], is_string: bool | None = None) -> str:
    """JSON text of the value: a string, unless the schema wants something else and the text is that.

    `is_string`: what the model says it is, which counts where the schema leaves it open.
    """
    types = types_of(schema, root)
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


def member_schema(schema: Any, name: str, root: Mapping[str, Any]) -> Any:
    """What an object's schema says of a member; None where it says nothing."""
    for each in _options(schema, root, DEEPEST):
        properties = each.get("properties")
        if isinstance(properties, dict) and name in properties:
            return properties[name]
    return None


def item_schema(schema: Any, root: Mapping[str, Any]) -> Any:
    """What a list's schema says of its members; None where it says nothing."""
    return next((each["items"] for each in _options(schema, root, DEEPEST) if "items" in each), None)


def types_of(schema: Any, root: Mapping[str, Any]) -> set[str]:
    """The types that a value may have, as far as the schema says."""
    types: set[str] = set()
    for each in _options(schema, root, DEEPEST):
        given, values = each.get("type", []), each.get("enum", [])
        types |= {kind for kind in (given if isinstance(given, list) else [given]) if isinstance(kind, str)}
        constants = [*(values if isinstance(values, list) else []), *([each["const"]] if "const" in each else [])]
        types |= set(map(kind_of, constants))
    return types


def _is_structure(text: str, types: set[str]) -> bool:
    wanted = {"{": "object", "[": "array"}.get(text[:1])
    return wanted in types and _is_json(text)


def _is_json(text: str) -> bool:
    """One value and nothing after it. A comma ends a number, which has no end of its own."""
    value = JsonText()
    piece, end = value.take(text + ",", 0)
    return value.complete and end == len(text) and piece == text


def _options(schema: Any, root: Mapping[str, Any], depth: int) -> Iterator[dict[str, Any]]:
    """The schema, and those that it refers to or unites."""
    if not isinstance(schema, dict) or not depth:
        return
    yield schema
    if isinstance(reference := schema.get("$ref"), str):
        yield from _options(referred(reference, root), root, depth - 1)
    for union in ("anyOf", "oneOf", "allOf"):
        for option in schema[union] if isinstance(schema.get(union), list) else []:
            yield from _options(option, root, depth - 1)


def kind_of(value: Any) -> str:
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}
    return kinds.get(type(value), "null")


def referred(reference: str, root: Mapping[str, Any]) -> Any:
    place: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        place = place.get(step) if isinstance(place, Mapping) else None
    return place
