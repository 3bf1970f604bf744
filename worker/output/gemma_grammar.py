"""The grammar of arguments as Gemma writes them: {city:<|"|>Paris<|"|>,days:3}, by the tool's schema."""

from collections.abc import Mapping
from typing import Any

from worker.output.gemma_values import KEY
from worker.output.lark_rules import Rules, Unwritable
from worker.output.tool_parameters import (
    DEEPEST,
    LIST_LIMITS,
    STRING_LIMITS,
    constants,
    kinds,
    properties,
    require_bounded,
    union,
    within,
)


def braced_object(rules: Rules, quote: str, parameters: Mapping[str, Any]) -> str:
    """Unwritable when the schema has what this form cannot be held to, such as a string's pattern."""
    return _Braced(rules, quote).object(parameters, DEEPEST)


class _Braced:
    def __init__(self, rules: Rules, quote: str) -> None:
        self._rules = rules
        self._quote = quote

    def object(self, schema: Mapping[str, Any], depth: int) -> str:
        items = []
        for name, value, required in properties(schema):
            if not KEY.fullmatch(name):
                raise Unwritable
            items.append((f"{self._rules.text(name + ':')} {self._value(value, depth - 1)}", required))
        return f'"{{" {self._rules.members(items, ",")} "}}"'

    def _value(self, schema: Mapping[str, Any], depth: int) -> str:
        require_bounded(self._rules, schema, depth)
        if "const" in schema or "enum" in schema:
            return self._rules.add(" | ".join(map(self._constant, constants(schema))))
        if options := union(schema):
            return self._rules.add(" | ".join(self._value(each, depth - 1) for each in options))
        if not (given := kinds(schema)):
            raise Unwritable
        return self._rules.add(" | ".join(self._of_kind(kind, schema, depth) for kind in sorted(given)))

    def _of_kind(self, kind: str, schema: Mapping[str, Any], depth: int) -> str:
        match kind:
            case "string" if not STRING_LIMITS & schema.keys():
                return f"{self._rules.text(self._quote)} {self._rules.up_to(self._quote)}"
            case "array" if not LIST_LIMITS & schema.keys():
                return self._list(schema, depth)
            case "object" if schema.get("properties") or schema.get("additionalProperties") is False:
                return self.object(schema, depth)
            case "integer" | "number" | "boolean" | "null":
                return self._rules.json({**schema, "type": kind})
        raise Unwritable

    def _list(self, schema: Mapping[str, Any], depth: int) -> str:
        (items,) = within(schema, [schema.get("items")])
        fewest, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0:
            return '"[]"'
        item = self._value(items, depth - 1)
        rest = f'("," {item}){{{max(fewest - 1, 0)},{"" if most is None else most - 1}}}'
        return f'"[" {item} {rest} "]"' if fewest else f'"[" ({item} {rest})? "]"'

    def _constant(self, value: Any) -> str:
        if isinstance(value, str) and self._quote not in value:
            return self._rules.text(f"{self._quote}{value}{self._quote}")
        if value is None or isinstance(value, bool | int | float):
            return self._rules.json({"const": value})
        raise Unwritable
