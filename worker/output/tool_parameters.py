"""What a tool's schema says of its arguments, for grammars that write them in forms of their own."""

from collections.abc import Mapping
from typing import Any

from worker.output.lark_rules import Rules, Unwritable
from worker.output.plain_values import kind_of, referred

STRING_LIMITS = {"minLength", "maxLength", "pattern", "format", "allOf", "oneOf", "$ref", "not"}
LIMITS = {"allOf", "anyOf", "oneOf", "$ref", "not", "if", "patternProperties", "propertyNames", "minProperties"}
PLAIN_TYPE = {"type", "title", "description"}
DEFINITIONS = ("$defs", "definitions")
BESIDE_UNIONS = {"title", "description", "default", "examples", *DEFINITIONS}
LIST_LIMITS = {*LIMITS, "prefixItems", "uniqueItems", "contains"}
CLOSED = {"additionalProperties": False}
DEEPEST = 16  # objects, lists and unions within one another
MOST_RULES = 2000  # of a grammar: schemas that refer to one another multiply


def kinds(schema: Mapping[str, Any]) -> set[str]:
    """The types that a value may have; none where the schema does not simply say so."""
    options = schema.get("anyOf")
    if options is not None:
        plain = all(isinstance(option, dict) and set(option) <= PLAIN_TYPE for option in options)
        each = [kinds(option) for option in options] if plain else []
        return set().union(*each) if all(each) else set()
    given = schema.get("type")
    return {given} if isinstance(given, str) else set(given or ())


def by_kind(schema: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The schema as one for each type that the value may have."""
    if "const" in schema or "enum" in schema:
        if not (options := [schema["const"]] if "const" in schema else schema["enum"]):
            raise Unwritable
        found = dict.fromkeys(map(kind_of, options))
        return [(kind, {"enum": [each for each in options if kind_of(each) == kind]}) for kind in found]
    if not (given := kinds(schema)):
        raise Unwritable
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return [(kind, {**rest, "type": kind}) for kind in sorted(given)]


def closed(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of the arguments, without properties that it does not name: models would make some up."""
    if not parameters.get("properties") or LIMITS & parameters.keys():
        return {"type": "object", **parameters}
    return {"type": "object", **CLOSED, **parameters}


def properties(parameters: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], bool]]:
    """Each with its schema, complete in itself, and whether it is required."""
    named, required = parameters.get("properties", {}), parameters.get("required", [])
    open_ended = parameters.get("additionalProperties", False) not in (False, True)
    if LIMITS & parameters.keys() or open_ended or not isinstance(named, dict) or set(required) - set(named):
        raise Unwritable
    definitions = {key: parameters[key] for key in DEFINITIONS if key in parameters}
    if not all(isinstance(schema, dict) for schema in named.values()):
        raise Unwritable
    complete = {name: {**definitions, **resolved(schema, parameters)} for name, schema in named.items()}
    return [(name, schema, name in required) for name, schema in complete.items()]


def resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """With what it refers to, if it is no more than a reference."""
    reference = schema.get("$ref")
    found = referred(reference, root) if isinstance(reference, str) else None
    return found if isinstance(found, dict) else schema


def constants(schema: Mapping[str, Any]) -> list[Any]:
    options = [schema["const"]] if "const" in schema else schema["enum"]
    if not isinstance(options, list) or not options:
        raise Unwritable
    return options


def within(schema: Mapping[str, Any], options: Any) -> list[Mapping[str, Any]]:
    """The schemas in a schema, each complete in itself."""
    if not isinstance(options, list) or not options or not all(isinstance(option, dict) for option in options):
        raise Unwritable
    definitions = {key: schema[key] for key in DEFINITIONS if key in schema}
    return [{**definitions, **resolved(option, schema)} for option in options]


def require_bounded(rules: Rules, schema: Mapping[str, Any], depth: int) -> None:
    """Unwritable when a value's schema is too deep, its grammar too long, or what is asked of it beyond a grammar."""
    if not depth or len(rules.lines) > MOST_RULES or (LIMITS - {"anyOf"}) & schema.keys():
        raise Unwritable


def union(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The options of a schema that is a union of others; none where it is not."""
    if "anyOf" not in schema:
        return []
    if schema.keys() - BESIDE_UNIONS != {"anyOf"}:
        raise Unwritable
    return within(schema, schema["anyOf"])
