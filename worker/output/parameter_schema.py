"""What the JSON Schema of a tool's parameters says of a value.

Two readings: a lenient one for arguments that were written, and a strict one for grammars, which have to guarantee
what the schema demands.
"""

from collections.abc import Iterator, Mapping, Sequence

Schema = Mapping[str, object]
"""A JSON Schema that is an object."""

STRING_LIMITS = {"minLength", "maxLength", "pattern", "format", "allOf", "oneOf", "$ref", "not"}
LIMITS = {"allOf", "anyOf", "oneOf", "$ref", "not", "if", "patternProperties", "propertyNames", "minProperties"}
LIST_LIMITS = {*LIMITS, "prefixItems", "uniqueItems", "contains"}
PLAIN_TYPE = {"type", "title", "description"}
DEFINITIONS = ("$defs", "definitions")
BESIDE_UNIONS = {"title", "description", "default", "examples", *DEFINITIONS}
DEEPEST = 16  # references and unions on the way to a type


class UnsupportedSchema(Exception):
    """The grammar of a family's calls cannot guarantee what this schema demands."""


def json_type(value: object) -> str:
    """JSON Schema's name for the type of a parsed value."""
    types = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}
    return types.get(type(value), "null")


def member_schema(schema: object, name: str, root: Schema) -> object:
    """The schema of an object's member; None if there is none. `root`: what references are resolved in."""
    for each in _alternatives(schema, root, DEEPEST):
        named = each.get("properties")
        if isinstance(named, dict) and name in named:
            return named[name]
    return None


def item_schema(schema: object, root: Schema) -> object:
    """The schema of a list's items; None if there is none."""
    return next((each["items"] for each in _alternatives(schema, root, DEEPEST) if "items" in each), None)


def possible_types(schema: object, root: Schema) -> set[str]:
    """The types that a value may have; empty if the schema does not say."""
    types: set[str] = set()
    for each in _alternatives(schema, root, DEEPEST):
        given, values = each.get("type", []), each.get("enum", [])
        types |= {type for type in (given if isinstance(given, list) else [given]) if isinstance(type, str)}
        constants = [*(values if isinstance(values, list) else []), *([each["const"]] if "const" in each else [])]
        types |= set(map(json_type, constants))
    return types


def _alternatives(schema: object, root: Schema, depth: int) -> Iterator[Schema]:
    """The schema, and those that it refers to or combines."""
    if not isinstance(schema, dict) or not depth:
        return
    yield schema
    if isinstance(reference := schema.get("$ref"), str):
        yield from _alternatives(_referenced(reference, root), root, depth - 1)
    for union in ("anyOf", "oneOf", "allOf"):
        for option in schema[union] if isinstance(schema.get(union), list) else []:
            yield from _alternatives(option, root, depth - 1)


def _referenced(reference: str, root: Schema) -> object:
    place: object = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        place = place.get(step) if isinstance(place, Mapping) else None
    return place


def declared_types(schema: Schema) -> set[str]:
    """The types that a value may have; empty if the schema does not list them plainly."""
    if (options := schema.get("anyOf")) is not None:
        types = [_option_types(option) for option in options] if isinstance(options, list) else []
        return set().union(*types) if all(types) else set()
    given = schema.get("type")
    return {given} if isinstance(given, str) else set(given) if isinstance(given, list) else set()


def _option_types(option: object) -> set[str]:
    """The types of a union's option; empty if it says more than its type."""
    return declared_types(option) if isinstance(option, dict) and option.keys() <= PLAIN_TYPE else set()


def schemas_by_type(schema: Schema) -> list[tuple[str, Schema]]:
    """The schema as one for each type that the value may have. Raises UnsupportedSchema if it does not list them."""
    if "const" in schema or "enum" in schema:
        options = constants(schema)
        types = dict.fromkeys(map(json_type, options))
        return [(type, {"enum": [each for each in options if json_type(each) == type]}) for type in types]
    if not (declared := declared_types(schema)):
        raise UnsupportedSchema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return [(type, {**rest, "type": type}) for type in sorted(declared)]


def closed(parameters: Schema) -> Schema:
    """The schema of the arguments, without properties that it does not name: models would invent some."""
    if not parameters.get("properties") or LIMITS & parameters.keys():
        return {"type": "object", **parameters}
    return {"type": "object", "additionalProperties": False, **parameters}


def properties(parameters: Schema) -> list[tuple[str, Schema, bool]]:
    """Each property's name, its schema with the definitions that this refers to, and whether it is required.

    Raises UnsupportedSchema if there may be others than those that are named.
    """
    named, required = parameters.get("properties", {}), parameters.get("required", [])
    if not isinstance(named, dict) or not isinstance(required, Sequence) or set(required) - set(named):
        raise UnsupportedSchema
    if LIMITS & parameters.keys() or parameters.get("additionalProperties", False) not in (False, True):
        raise UnsupportedSchema
    schemas = subschemas(parameters, list(named.values())) if named else []
    return [(name, schema, name in required) for name, schema in zip(named, schemas, strict=True)]


def subschemas(schema: Schema, parts: object) -> list[Schema]:
    """The schemas in a schema, each with the definitions of this one. Raises UnsupportedSchema if one is no object."""
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise UnsupportedSchema
    definitions = {key: schema[key] for key in DEFINITIONS if key in schema}
    return [{**definitions, **_resolved(part, schema)} for part in parts]


def _resolved(schema: Schema, root: Schema) -> Schema:
    """What the schema refers to, or the schema itself."""
    reference = schema.get("$ref")
    found = _referenced(reference, root) if isinstance(reference, str) else None
    return found if isinstance(found, dict) else schema


def constants(schema: Schema) -> list[object]:
    """The values that a schema with `const` or `enum` allows. Raises UnsupportedSchema if there are none."""
    options = [schema["const"]] if "const" in schema else schema["enum"]
    if not isinstance(options, list) or not options:
        raise UnsupportedSchema
    return options


def union(schema: Schema) -> list[Schema]:
    """The options of a schema that is a union, or an empty list. Raises UnsupportedSchema if it demands more."""
    if "anyOf" not in schema:
        return []
    if schema.keys() - BESIDE_UNIONS != {"anyOf"}:
        raise UnsupportedSchema
    return subschemas(schema, schema["anyOf"])
