"""Grammars of arguments that are written neither as JSON nor as plain text, by the tool's schema.

Braced, as Gemma writes them: {city:<|"|>Paris<|"|>,days:3}. Nested, as MiniMax M3 does: tags within tags.
"""

from abc import ABC, abstractmethod

from worker.output.braced_arguments import KEY
from worker.output.lark_rules import Rules
from worker.output.parameter_schema import (
    LIMITS,
    LIST_LIMITS,
    STRING_LIMITS,
    Schema,
    UnsupportedSchema,
    constants,
    declared_types,
    properties,
    subschemas,
    union,
)
from worker.output.tagged_arguments import ITEM

DEEPEST = 16  # levels of objects, lists and unions
MOST_RULES = 2000  # in a grammar: schemas that refer to one another multiply


def braced_object(rules: Rules, quote: str, parameters: Schema) -> str:
    """Raises UnsupportedSchema for limits that this form cannot guarantee, such as a string's pattern."""
    return _Braced(rules, quote).members(parameters, DEEPEST)


def nested_elements(rules: Rules, mark: str, parameters: Schema) -> str:
    """Raises UnsupportedSchema for limits that this form cannot guarantee, such as a string's pattern."""
    return _Nested(rules, mark).members(parameters, DEEPEST)


class _Form(ABC):
    """Values by their schemas. `end`: the text that follows a value and belongs to its rule."""

    def __init__(self, rules: Rules, mark: str) -> None:
        self._rules = rules
        self._mark = mark

    @abstractmethod
    def members(self, schema: Schema, depth: int) -> str: ...

    @abstractmethod
    def _list(self, items: Schema, fewest: int, most: int | None, depth: int) -> str: ...

    @abstractmethod
    def _string(self, end: str) -> str: ...

    @abstractmethod
    def _constant_string(self, text: str, end: str) -> str: ...

    def _writable_types(self, types: set[str]) -> set[str]:
        return types

    def _writable_options(self, options: list[Schema]) -> list[Schema]:
        return options

    def _value(self, schema: Schema, depth: int, end: str = "") -> str:
        if not depth or len(self._rules.lines) > MOST_RULES or (LIMITS - {"anyOf"}) & schema.keys():
            raise UnsupportedSchema
        if "const" in schema or "enum" in schema:
            values = [self._constant(value, end) for value in constants(schema)]
        elif options := union(schema):
            values = [self._value(option, depth - 1, end) for option in self._writable_options(options)]
        elif types := self._writable_types(declared_types(schema)):
            values = [self._of_type(type, schema, depth, end) for type in sorted(types)]
        else:
            raise UnsupportedSchema
        return self._rules.add(" | ".join(values))

    def _of_type(self, type: str, schema: Schema, depth: int, end: str) -> str:
        match type:
            case "string" if not STRING_LIMITS & schema.keys():
                return self._string(end)
            case "array" if not LIST_LIMITS & schema.keys():
                (items,) = subschemas(schema, [schema.get("items")])
                fewest, most = _count(schema, "minItems") or 0, _count(schema, "maxItems")
                return self._ended(self._list(items, fewest, most, depth), end)
            case "object" if schema.get("properties") or schema.get("additionalProperties") is False:
                return self._ended(self.members(schema, depth), end)
            case "integer" | "number" | "boolean" | "null":
                return self._ended(self._rules.json({**schema, "type": type}), end)
        raise UnsupportedSchema

    def _constant(self, value: object, end: str) -> str:
        if isinstance(value, str):
            return self._constant_string(value, end)
        if value is None or isinstance(value, bool | int | float):
            return self._ended(self._rules.json({"const": value}), end)
        raise UnsupportedSchema

    def _ended(self, value: str, end: str) -> str:
        return f"{value} {self._rules.text(end)}" if end else value


class _Braced(_Form):
    def members(self, schema: Schema, depth: int) -> str:
        items = []
        for name, value, required in properties(schema):
            if not KEY.fullmatch(name):
                raise UnsupportedSchema
            items.append((f"{self._rules.text(name + ':')} {self._value(value, depth - 1)}", required))
        return f'"{{" {self._rules.members(items, ",")} "}}"'

    def _list(self, items: Schema, fewest: int, most: int | None, depth: int) -> str:
        if most == 0:
            return '"[]"'
        item = self._value(items, depth - 1)
        rest = f'("," {item}){{{max(fewest - 1, 0)},{"" if most is None else most - 1}}}'
        return f'"[" {item} {rest} "]"' if fewest else f'"[" ({item} {rest})? "]"'

    def _string(self, end: str) -> str:
        return self._ended(f"{self._rules.text(self._mark)} {self._rules.up_to(self._mark)}", end)

    def _constant_string(self, text: str, end: str) -> str:
        if self._mark in text:
            raise UnsupportedSchema
        return self._ended(self._rules.text(f"{self._mark}{text}{self._mark}"), end)


class _Nested(_Form):
    """Leaves null out where a value may be something else: its element is not written then."""

    def members(self, schema: Schema, depth: int) -> str:
        elements = []
        for name, value, required in properties(schema):
            if not name or name == ITEM or set(name) & set("<>/ \n"):
                raise UnsupportedSchema
            element = self._element(name, value, depth - 1)
            elements.append(element if required else f"({element})?")
        return " ".join(elements)

    def _element(self, tag: str, schema: Schema, depth: int) -> str:
        return f"{self._rules.text(f'{self._mark}<{tag}>')} {self._value(schema, depth, f'{self._mark}</{tag}>')}"

    def _list(self, items: Schema, fewest: int, most: int | None, depth: int) -> str:
        return f"({self._element(ITEM, items, depth - 1)}){{{fewest},{'' if most is None else most}}}"

    def _string(self, end: str) -> str:
        return self._rules.up_to(end)

    def _constant_string(self, text: str, end: str) -> str:
        if not text or self._mark in text:
            raise UnsupportedSchema
        return self._rules.text(text + end)

    def _writable_types(self, types: set[str]) -> set[str]:
        written = types - {"null"} or types
        if "string" in written and len(written) > 1:  # a string has no marks to distinguish it by
            raise UnsupportedSchema
        return written

    def _writable_options(self, options: list[Schema]) -> list[Schema]:
        written = [option for option in options if declared_types(option) != {"null"}] or options
        if len(written) > 1 and any("string" in declared_types(option) for option in written):
            raise UnsupportedSchema
        return written


def _count(schema: Schema, limit: str) -> int | None:
    """A limit of a list's length; None where there is none."""
    count = schema.get(limit)
    if count is not None and not isinstance(count, int):
        raise UnsupportedSchema
    return count
