"""`oneOf` as `anyOf` where that is the same: no value can match two of the branches. Pure.

llguidance does this too, but not through a `$ref`, which is how pydantic writes unions of models.
"""

import itertools
from typing import Any

MOST_BRANCHES = 64
DEEPEST = 4  # levels of objects that are compared
MOST_REFERENCES = 8  # in a row

_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_SINGLE = ("items", "additionalProperties", "additionalItems")

Schema = Any


def settle_one_of(root: Schema) -> Schema:
    """The schema with every `oneOf` of disjoint branches as `anyOf`; the order of keys is kept."""
    return _settled(root, root)


def _settled(schema: Schema, root: Schema) -> Schema:
    if not isinstance(schema, dict):
        return schema
    safe = "anyOf" not in schema and _branches_disjoint(schema.get("oneOf"), root)
    return {"anyOf" if safe and key == "oneOf" else key: _below(key, value, root) for key, value in schema.items()}


def _below(key: str, value: Any, root: Schema) -> Any:
    """The schemas under a key, settled; whatever is data stays as it is."""
    if key in _LISTS and isinstance(value, list):
        return [_settled(each, root) for each in value]
    if key in _MAPS and isinstance(value, dict):
        return {name: _settled(each, root) for name, each in value.items()}
    return _settled(value, root) if key in _SINGLE else value


def _branches_disjoint(branches: Any, root: Schema) -> bool:
    if not isinstance(branches, list) or not 0 < len(branches) <= MOST_BRANCHES:
        return False
    resolved = [_resolve(branch, root) for branch in branches]
    return all(_disjoint(a, b, root, DEEPEST) for a, b in itertools.combinations(resolved, 2))


def _disjoint(a: Schema, b: Schema, root: Schema, depth: int) -> bool:
    if not isinstance(a, dict) or not isinstance(b, dict):
        return False
    values_a, values_b = _values(a), _values(b)
    if values_a is not None and values_b is not None:
        return not any(x == y for x in values_a for y in values_b)
    types_a, types_b = _types(a), _types(b)
    if types_a and types_b and not types_a & types_b:
        return True
    return types_a == types_b == {"object"} and depth > 0 and _told_apart(a, b, root, depth)


def _told_apart(a: Schema, b: Schema, root: Schema, depth: int) -> bool:
    """Whether a property that both require has values in common with neither."""
    required = set(_names(a, "required")) & set(_names(b, "required"))
    of_a, of_b = a.get("properties"), b.get("properties")
    if not isinstance(of_a, dict) or not isinstance(of_b, dict):
        return False
    shared = required & of_a.keys() & of_b.keys()
    return any(_disjoint(_resolve(of_a[k], root), _resolve(of_b[k], root), root, depth - 1) for k in shared)


def _values(schema: Schema) -> list[Any] | None:
    """The only values that match, when the schema lists them."""
    if "const" in schema:
        return [schema["const"]]
    listed = schema.get("enum")
    return listed if isinstance(listed, list) and len(listed) <= MOST_BRANCHES else None


def _types(schema: Schema) -> set[str]:
    """The types that may match; empty when any may. Integers are numbers."""
    values = _values(schema)
    names = [_type_of(value) for value in values] if values is not None else _names(schema, "type")
    return {"number" if name == "integer" else name for name in names}


def _type_of(value: Any) -> str:
    kinds = ((bool, "boolean"), (int | float, "number"), (str, "string"), (list, "array"), (dict, "object"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")


def _names(schema: Schema, key: str) -> list[str]:
    given = schema.get(key)
    listed = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    return [name for name in listed if isinstance(name, str)]


def _resolve(schema: Schema, root: Schema) -> Schema:
    """What a local `$ref` leads to. Its neighbours are left out: they make a schema narrower, never wider."""
    for _ in range(MOST_REFERENCES):
        if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
            return schema
        schema = _target(schema["$ref"], root)
    return None


def _target(reference: str, root: Schema) -> Schema:
    if not reference.startswith("#/"):
        return None
    found = root
    for part in reference[2:].split("/"):
        if not isinstance(found, dict):
            return None
        found = found.get(part.replace("~1", "/").replace("~0", "~"))
    return found
