"""`oneOf` as `anyOf` where that is the same: no value can match two of the branches. Pure.

llguidance does this too, but not through a `$ref`, which is how pydantic writes unions of models.
"""

import itertools
from dataclasses import dataclass
from typing import Any

MOST_BRANCHES = 64
DEEPEST = 4  # levels of objects that are compared
MOST_REFERENCES = 8  # in a row
MOST_TYPES = 8  # there are seven
MOST_COMPARISONS = 100_000  # of a schema: references let a small one compare more with more than ever ends

_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_SINGLE = ("items", "additionalProperties", "additionalItems")

Schema = Any


def settle_one_of(root: Schema) -> Schema:
    """The schema with every `oneOf` of disjoint branches as `anyOf`; the order of keys is kept."""
    return _settled(root, _Search(root))


@dataclass(slots=True)
class _Search:
    """What is compared, and how much more may be. Branches that take too long to compare count as alike."""

    root: Schema
    left: int = MOST_COMPARISONS

    def affords(self, comparisons: int) -> bool:
        self.left -= comparisons
        return self.left >= 0

    def resolve(self, schema: Schema) -> Schema:
        return _resolve(schema, self.root)


def _settled(schema: Schema, search: _Search) -> Schema:
    if not isinstance(schema, dict):
        return schema
    safe = "anyOf" not in schema and _branches_disjoint(schema.get("oneOf"), search)
    return {"anyOf" if safe and key == "oneOf" else key: _below(key, value, search) for key, value in schema.items()}


def _below(key: str, value: Any, search: _Search) -> Any:
    """The schemas under a key, settled; whatever is data stays as it is."""
    if key in _LISTS and isinstance(value, list):
        return [_settled(each, search) for each in value]
    if key in _MAPS and isinstance(value, dict):
        return {name: _settled(each, search) for name, each in value.items()}
    return _settled(value, search) if key in _SINGLE else value


def _branches_disjoint(branches: Any, search: _Search) -> bool:
    if not isinstance(branches, list) or not 0 < len(branches) <= MOST_BRANCHES:
        return False
    resolved = [search.resolve(branch) for branch in branches]
    return all(_disjoint(a, b, search, DEEPEST) for a, b in itertools.combinations(resolved, 2))


def _disjoint(a: Schema, b: Schema, search: _Search, depth: int) -> bool:
    if not isinstance(a, dict) or not isinstance(b, dict) or not search.affords(1):
        return False
    values_a, values_b = _values(a), _values(b)
    if values_a is not None and values_b is not None:
        affordable = search.affords(len(values_a) * len(values_b))
        return affordable and not any(x == y for x in values_a for y in values_b)
    types_a, types_b = _types(a), _types(b)
    if types_a and types_b and not types_a & types_b:
        return True
    return types_a == types_b == {"object"} and depth > 0 and _told_apart(a, b, search, depth)


def _told_apart(a: Schema, b: Schema, search: _Search, depth: int) -> bool:
    """Whether a property that both require has values in common with neither."""
    of_a, of_b = a.get("properties"), b.get("properties")
    required_a, required_b = _names(a, "required"), _names(b, "required")
    if not isinstance(of_a, dict) or not isinstance(of_b, dict) or not search.affords(len(required_a + required_b)):
        return False
    shared = set(required_a) & set(required_b) & of_a.keys() & of_b.keys()
    return any(_disjoint(search.resolve(of_a[k]), search.resolve(of_b[k]), search, depth - 1) for k in shared)


def _values(schema: Schema) -> list[Any] | None:
    """The only values that match, when the schema lists them."""
    if "const" in schema:
        return [schema["const"]]
    listed = schema.get("enum")
    return listed if isinstance(listed, list) and len(listed) <= MOST_BRANCHES else None


def _types(schema: Schema) -> set[str]:
    """The types that may match; empty when any may. Integers are numbers."""
    if isinstance(listed := schema.get("type"), list) and len(listed) > MOST_TYPES:
        return set()
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
