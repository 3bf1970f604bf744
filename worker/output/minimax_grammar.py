"""The grammar of arguments as MiniMax M3 writes them, by the tool's schema: tags within tags, a mark before each."""

from collections.abc import Mapping
from typing import Any

from worker.output.lark_rules import Rules, Unwritable
from worker.output.minimax_values import ITEM
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


def nested_members(rules: Rules, mark: str, parameters: Mapping[str, Any]) -> str:
    """Unwritable when the schema has what this form cannot be held to, such as a string's pattern."""
    return _Nested(rules, mark).members(parameters, DEEPEST)


class _Nested:
    def __init__(self, rules: Rules, mark: str) -> None:
        self._rules = rules
        self._mark = mark

    def members(self, schema: Mapping[str, Any], depth: int) -> str:
        elements = []
        for name, value, required in properties(schema):
            if not name or name == ITEM or set(name) & set("<>/ \n"):
                raise Unwritable
            element = self._element(name, value, depth - 1)
            elements.append(element if required else f"({element})?")
        return " ".join(elements)

    def _element(self, tag: str, schema: Mapping[str, Any], depth: int) -> str:
        return f"{self._rules.text(f'{self._mark}<{tag}>')} {self._value(schema, f'{self._mark}</{tag}>', depth)}"

    def _value(self, schema: Mapping[str, Any], end: str, depth: int) -> str:
        """With the end of its tag."""
        require_bounded(self._rules, schema, depth)
        if "const" in schema or "enum" in schema:
            return self._rules.add(" | ".join(self._constant(value, end) for value in constants(schema)))
        if options := union(schema):
            said = [option for option in options if kinds(option) != {"null"}] or options
            if len(said) > 1 and any("string" in kinds(option) for option in said):
                raise Unwritable
            return self._rules.add(" | ".join(self._value(option, end, depth - 1) for option in said))
        given = kinds(schema)
        said_kinds = given - {"null"} or given  # what is null is left out, or told otherwise
        if not said_kinds or ("string" in said_kinds and len(said_kinds) > 1):
            raise Unwritable
        return self._rules.add(" | ".join(self._of_kind(kind, schema, end, depth) for kind in sorted(said_kinds)))

    def _of_kind(self, kind: str, schema: Mapping[str, Any], end: str, depth: int) -> str:
        match kind:
            case "string" if not STRING_LIMITS & schema.keys():
                return self._rules.up_to(end)
            case "array" if not LIST_LIMITS & schema.keys():
                (items,) = within(schema, [schema.get("items")])
                fewest, most = schema.get("minItems", 0), schema.get("maxItems", "")
                return f"({self._element(ITEM, items, depth - 1)}){{{fewest},{most}}} {self._rules.text(end)}"
            case "object" if schema.get("properties") or schema.get("additionalProperties") is False:
                return f"{self.members(schema, depth)} {self._rules.text(end)}"
            case "integer" | "number" | "boolean" | "null":
                return f"{self._rules.json({**schema, 'type': kind})} {self._rules.text(end)}"
        raise Unwritable

    def _constant(self, value: Any, end: str) -> str:
        if isinstance(value, str) and value and self._mark not in value:
            return self._rules.text(value + end)
        if value is None or isinstance(value, bool | int | float):
            return f"{self._rules.json({'const': value})} {self._rules.text(end)}"
        raise Unwritable
