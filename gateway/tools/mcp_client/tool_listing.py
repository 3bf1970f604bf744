"""A server's list of tools: those that can be offered to a model, as the server wrote them or put right. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from jsonschema import Draft202012Validator, FormatChecker

from atelier.json_types import Json
from gateway.core.hosted_tool import ServerTool
from gateway.tools.mcp_client.mcp_limits import PoolLimits

LONGEST_NAME = 128  # characters, as MCP has it
LONGEST_TITLE = 256
HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")


class _Unusable(Exception):
    """Why a tool is left out."""


@dataclass(slots=True)
class Listing:
    """What came of one list, page by page. `outputs`: schemas of what tools answer; `left_out`: reasons, by count.

    `callable`: names of those that the SDK took; it refuses tools whose `x-mcp-header` is not one.
    """

    tools: dict[str, ServerTool] = field(default_factory=dict)
    callable: set[str] = field(default_factory=set)
    outputs: dict[str, Json] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    size: int = 0  # of all schemas

    def take(self, page: Json, limits: PoolLimits) -> None:
        """One page's tools. Of the page, in place, only those that are usable stay, without their outputs' schemas."""
        kept = []
        for given in page["tools"]:
            try:
                tool = self._read(given, limits)
            except _Unusable as reason:
                self.left_out[str(reason)] = self.left_out.get(str(reason), 0) + 1
                continue
            self.tools[tool.name] = tool
            kept.append(_plain(tool))
        page["tools"] = kept
        page.pop("_meta", None)

    def _read(self, given: object, limits: PoolLimits) -> ServerTool:
        if len(self.tools) >= limits.tools:
            raise _Unusable("one too many")
        if not isinstance(given, dict):
            raise _Unusable("not an object")
        name = _name(given.get("name"))
        if name in self.tools:
            raise _Unusable("its name is another's")
        parameters = self._schema(given.get("inputSchema"), limits)
        output = given.get("outputSchema")
        if isinstance(output, dict) and _size(output, limits) <= limits.schema:
            self.outputs[name] = output
        description = given.get("description")
        return ServerTool(
            name,
            description[: limits.description] if isinstance(description, str) else "",
            parameters,
            _annotations(given),
        )

    def _schema(self, given: object, limits: PoolLimits) -> Json:
        if not isinstance(given, dict) or given.get("type", "object") != "object":
            raise _Unusable("its schema is not that of an object")
        size = _size(given, limits)
        if size > limits.schema or self.size + size > limits.schemas:
            raise _Unusable("its schema is too large")
        if any(not reference.startswith("#") for reference in _references(given)):
            raise _Unusable("its schema refers to another")
        try:
            Draft202012Validator.check_schema(given, FormatChecker(()))
        except Exception:  # beside SchemaError whatever the library makes of what nobody foresaw
            raise _Unusable("its schema is not a JSON Schema") from None
        try:
            orjson.dumps(given)
        except TypeError:  # a number of more than 64 bits, which no request and no reply of ours could carry on
            raise _Unusable("its schema cannot be passed on") from None
        self.size += size
        return {**given, "type": "object"}


def _name(given: object) -> str:
    if not isinstance(given, str) or not 0 < len(given) <= LONGEST_NAME:
        raise _Unusable("its name is empty or too long")
    if not given.isprintable() or " " in given:
        raise _Unusable("its name has characters that no name has")
    return given


def _annotations(given: Json) -> Json:
    words = given.get("annotations")
    words = words if isinstance(words, dict) else {}
    title = given.get("title") or words.get("title")
    found: Json = {hint: words[hint] for hint in HINTS if isinstance(words.get(hint), bool)}
    return {"title": title[:LONGEST_TITLE], **found} if isinstance(title, str) else found


def _plain(tool: ServerTool) -> Json:
    return {
        "name": tool.name,
        "description": tool.description,
        "inputSchema": dict(tool.parameters),
        "annotations": dict(tool.annotations),
    }


def _size(schema: Json, limits: PoolLimits) -> int:
    """In characters of JSON; beyond every limit where it is too deep to be written."""
    if depth_of(schema) > limits.depth:
        return limits.schema + 1
    return len(json.dumps(schema, ensure_ascii=False))


def depth_of(value: object) -> int:
    """How deep objects and arrays lie in one another, without recursion."""
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [inner for outer in level for inner in _inside(outer)]
    return depth


def _references(schema: object) -> Iterator[str]:
    for key, value in _members(schema):
        if key in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
            yield value


def _members(value: object) -> Iterator[tuple[str, object]]:
    waiting = [value]
    while waiting:
        outer = waiting.pop()
        if isinstance(outer, Mapping):
            yield from outer.items()
        waiting += _inside(outer)


def _inside(value: object) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []
