"""Rewrites `oneOf` as `anyOf` where both mean the same: where no value can match two of the branches. Pure.

llguidance does this too, but not for branches behind a `$ref`, which is how pydantic writes unions of models.
"""

import itertools
from dataclasses import dataclass

from atelier.json_types import Json
from worker.output.parameter_schema import json_type

MOST_BRANCHES = 64
DEEPEST = 4  # levels of objects that are compared
MOST_REFERENCES = 8  # in a row
MOST_TYPES = 8  # JSON Schema has seven
MOST_COMPARISONS = 100_000  # in a schema: through references, a small one could demand an unbounded number

_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_SINGLE = ("items", "additionalProperties", "additionalItems")

Schema = object  # anything that may stand where JSON Schema expects a schema


def rewrite_one_of(root: Schema) -> Schema:
    """The schema with every `oneOf` of disjoint branches as `anyOf`. Keys keep their order."""
    return _rewritten(root, _Search(root))


@dataclass(slots=True)
class _Search:
    """The comparisons in a schema. Branches count as overlapping once too many have been made."""

    root: Schema
    remaining: int = MOST_COMPARISONS

    def affords(self, comparisons: int) -> bool:
        self.remaining -= comparisons
        return self.remaining >= 0

    def resolve(self, schema: Schema) -> Schema:
        return _resolve(schema, self.root)


def _rewritten(schema: Schema, search: _Search) -> Schema:
    if not isinstance(schema, dict):
        return schema
    safe = "anyOf" not in schema and _branches_disjoint(schema.get("oneOf"), search)
    return {"anyOf" if safe and key == "oneOf" else key: _below(key, value, search) for key, value in schema.items()}


def _below(key: str, value: object, search: _Search) -> object:
    """The value of a key, with the schemas in it rewritten. Data, such as a default, is left unchanged."""
    if key in _LISTS and isinstance(value, list):
        return [_rewritten(each, search) for each in value]
    if key in _MAPS and isinstance(value, dict):
        return {name: _rewritten(each, search) for name, each in value.items()}
    return _rewritten(value, search) if key in _SINGLE else value


def _branches_disjoint(branches: object, search: _Search) -> bool:
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
    return types_a == types_b == {"object"} and depth > 0 and _distinguishable(a, b, search, depth)


def _distinguishable(a: Json, b: Json, search: _Search, depth: int) -> bool:
    """Whether both require a property whose values in one are never values in the other."""
    of_a, of_b = a.get("properties"), b.get("properties")
    required_a, required_b = _names(a, "required"), _names(b, "required")
    if not isinstance(of_a, dict) or not isinstance(of_b, dict) or not search.affords(len(required_a + required_b)):
        return False
    shared = set(required_a) & set(required_b) & of_a.keys() & of_b.keys()
    return any(_disjoint(search.resolve(of_a[k]), search.resolve(of_b[k]), search, depth - 1) for k in shared)


def _values(schema: Json) -> list[object] | None:
    """The values that match; None if the schema does not list them."""
    if "const" in schema:
        return [schema["const"]]
    listed = schema.get("enum")
    return listed if isinstance(listed, list) and len(listed) <= MOST_BRANCHES else None


def _types(schema: Json) -> set[str]:
    """The types that match; empty if any may. Integers count as numbers."""
    if isinstance(listed := schema.get("type"), list) and len(listed) > MOST_TYPES:
        return set()
    values = _values(schema)
    names = [json_type(value) for value in values] if values is not None else _names(schema, "type")
    return {"number" if name == "integer" else name for name in names}


def _names(schema: Json, key: str) -> list[str]:
    given = schema.get(key)
    listed = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    return [name for name in listed if isinstance(name, str)]


def _resolve(schema: Schema, root: Schema) -> Schema:
    """The target of a local `$ref`. Keys beside the reference are ignored: they can only narrow the schema."""
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
