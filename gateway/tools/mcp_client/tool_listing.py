"""One listing of a server's tools: those that can be offered to a model, sanitized. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import orjson
from jsonschema import Draft202012Validator, FormatChecker

from atelier.json_types import Json
from gateway.core.hosted_tool import ServerTool
from gateway.tools.mcp_client.mcp_limits import PoolLimits

LONGEST_TOOL_NAME = 128  # characters, MCP's limit
LONGEST_TITLE = 256
HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")


class _Unusable(Exception):
    """Why a tool is left out."""


@dataclass(slots=True)
class ToolListing:
    """The result of all pages so far. `output_schemas`: by tool name; `left_out`: number of tools, by reason.

    `callable`: names of the tools that the SDK accepted; it rejects those with an invalid `x-mcp-header`.
    """

    tools: dict[str, ServerTool] = field(default_factory=dict)
    callable: set[str] = field(default_factory=set)
    output_schemas: dict[str, Json] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    size: int = 0  # of all input schemas

    def take(self, page: Json, limits: PoolLimits) -> None:
        """Adds one page's tools. Removes from the page, in place, unusable tools and all output schemas."""
        kept = []
        for entry in page["tools"]:
            try:
                tool = self._read(entry, limits)
            except _Unusable as reason:
                self.left_out[str(reason)] = self.left_out.get(str(reason), 0) + 1
                continue
            self.tools[tool.name] = tool
            kept.append(_sanitized_entry(tool))
        page["tools"] = kept
        page.pop("_meta", None)

    def _read(self, entry: object, limits: PoolLimits) -> ServerTool:
        if len(self.tools) >= limits.tools:
            raise _Unusable("too many tools")
        if not isinstance(entry, dict):
            raise _Unusable("not an object")
        name = _name(entry.get("name"))
        if name in self.tools:
            raise _Unusable("its name is another's")
        parameters = self._schema(entry.get("inputSchema"), limits)
        output = entry.get("outputSchema")
        if isinstance(output, dict) and _size(output, limits) <= limits.schema:
            self.output_schemas[name] = output
        description = entry.get("description")
        return ServerTool(
            name,
            description[: limits.description] if isinstance(description, str) else "",
            parameters,
            _annotations(entry),
        )

    def _schema(self, schema: object, limits: PoolLimits) -> Json:
        if not isinstance(schema, dict) or schema.get("type", "object") != "object":
            raise _Unusable("its schema is not that of an object")
        size = _size(schema, limits)
        if size > limits.schema or self.size + size > limits.schemas:
            raise _Unusable("its schema is too large")
        if any(not reference.startswith("#") for reference in _references(schema)):
            raise _Unusable("its schema refers to another document")
        try:
            Draft202012Validator.check_schema(schema, FormatChecker(()))
        except Exception:  # SchemaError, and whatever the library raises on hostile input
            raise _Unusable("its schema is not a JSON Schema") from None
        try:
            orjson.dumps(schema)
        except TypeError:  # an integer beyond 64 bits, which orjson could not write in requests and replies either
            raise _Unusable("its schema cannot be passed on") from None
        self.size += size
        return {**schema, "type": "object"}


def _name(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_TOOL_NAME:
        raise _Unusable("its name is empty or too long")
    if not name.isprintable() or " " in name:
        raise _Unusable("its name has spaces or control characters")
    return name


def _annotations(entry: Json) -> Json:
    annotations = entry.get("annotations")
    annotations = annotations if isinstance(annotations, dict) else {}
    title = entry.get("title") or annotations.get("title")
    hints: Json = {hint: annotations[hint] for hint in HINTS if isinstance(annotations.get(hint), bool)}
    return {"title": title[:LONGEST_TITLE], **hints} if isinstance(title, str) else hints


def _sanitized_entry(tool: ServerTool) -> Json:
    return {
        "name": tool.name,
        "description": tool.description,
        "inputSchema": dict(tool.parameters),
        "annotations": dict(tool.annotations),
    }


def _size(schema: Json, limits: PoolLimits) -> int:
    """In characters of JSON; beyond the limit if the schema is too deep to serialise."""
    if depth_of(schema) > limits.depth:
        return limits.schema + 1
    return len(json.dumps(schema, ensure_ascii=False))


def depth_of(value: object) -> int:
    """How deep objects and arrays are nested. Iterative, as hostile input could exhaust the stack."""
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [inner for outer in level for inner in _children(outer)]
    return depth


def _references(schema: object) -> Iterator[str]:
    for key, value in _members(schema):
        if key in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
            yield value


def _members(value: object) -> Iterator[tuple[str, object]]:
    """The members of all objects in it, at any depth."""
    pending = [value]
    while pending:
        outer = pending.pop()
        if isinstance(outer, Mapping):
            yield from outer.items()
        pending += _children(outer)


def _children(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []
