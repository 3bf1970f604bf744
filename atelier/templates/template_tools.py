"""Tools for templates that write more of each argument than its schema may say. Pure."""

from collections.abc import Mapping
from typing import Any

from atelier.json_types import Json


def described(tool: Mapping[str, Any]) -> Json:
    """The definition with a description of each argument, empty where there was none, and what objects hold."""
    function = tool["function"]
    parameters = function["parameters"]
    if not isinstance(properties := parameters.get("properties"), dict):
        return dict(tool)
    properties = {name: _described(schema) for name, schema in properties.items()}
    return {**tool, "function": {**function, "parameters": {**parameters, "properties": properties}}}


def _described(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    held: Json = {"additionalProperties": {}} if schema.get("type") == "object" else {}
    return {"description": "", **held, **schema}
