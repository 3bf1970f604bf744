"""Where `oneOf` means the same as `anyOf`."""

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.constraint.one_of import rewrite_one_of

CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind"]}
DOG = {"type": "object", "properties": {"kind": {"const": "dog"}}, "required": ["kind"]}


def settled(*branches: Any, **more: Any) -> bool:
    return "anyOf" in rewrite_one_of({"oneOf": list(branches), **more})


@pytest.mark.parametrize(
    "branches",
    [
        ({"type": "string"}, {"type": "integer"}),
        ({"type": ["string", "null"]}, {"type": "array"}, {"type": "boolean"}),
        ({"const": 1}, {"const": 2}),
        ({"enum": ["a", "b"]}, {"enum": ["c"]}),
        ({"enum": ["a", None]}, {"type": "object"}),
        (CAT, DOG),
        (CAT, DOG, {"type": "null"}),
    ],
)
def test_disjoint_branches_are_resolved(branches: tuple[Any, ...]) -> None:
    assert settled(*branches)


@pytest.mark.parametrize(
    "branches",
    [
        ({"type": "number"}, {"type": "integer"}),
        ({"type": "string", "maxLength": 3}, {"type": "string", "minLength": 2}),
        ({"const": 1}, {"enum": [1.0, 2]}),
        ({}, {"type": "string"}),
        (True, {"type": "string"}),
        (CAT, CAT),
        (CAT, {**DOG, "required": []}),
        ({key: value for key, value in CAT.items() if key != "type"}, DOG),
        ({"$ref": "https://example.org/a"}, {"type": "string"}),
        ({"$ref": "#/$defs/none"}, {"type": "string"}),
        (),
    ],
)
def test_branches_that_may_overlap_are_not_resolved(branches: tuple[Any, ...]) -> None:
    assert not settled(*branches)


def test_references_are_followed() -> None:
    refs = {"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}
    assert settled(*refs, **{"$defs": {"Cat": CAT, "Dog": DOG}})
    assert not settled(*refs, **{"$defs": {"Cat": CAT, "Dog": CAT}})


def test_circular_references_terminate() -> None:
    assert not settled({"$ref": "#/$defs/a"}, {"type": "string"}, **{"$defs": {"a": {"$ref": "#/$defs/a"}}})


def test_the_order_of_keys_and_the_data_are_kept() -> None:
    data = {"oneOf": [{"const": 1}, {"const": 2}]}
    schema = {"title": "x", "const": data, "properties": {"oneOf": data, "b": {"items": data}}, "default": data}
    assert rewrite_one_of(schema) == {
        "title": "x",
        "const": data,
        "properties": {"oneOf": {"anyOf": data["oneOf"]}, "b": {"items": {"anyOf": data["oneOf"]}}},
        "default": data,
    }
    assert list(rewrite_one_of(schema)) == list(schema)


def test_one_of_beside_any_of_is_kept() -> None:
    assert "oneOf" in rewrite_one_of({"anyOf": [{}], "oneOf": [{"const": 1}, {"const": 2}]})


values = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["a", "b", 1.0, 0.5])
branches = st.one_of(
    st.builds(lambda value: {"const": value}, values),
    st.builds(lambda listed: {"enum": listed}, st.lists(values, min_size=1, max_size=3)),
    st.builds(lambda name: {"type": name}, st.sampled_from(["string", "integer", "number", "null", "boolean"])),
    st.just({}),
)


@given(given_branches=st.lists(branches, min_size=1, max_size=4), value=values)
def test_both_keywords_accept_the_same_values(given_branches: list[Any], value: Any) -> None:
    schema = {"oneOf": given_branches}
    assert jsonschema.Draft202012Validator(schema).is_valid(value) == jsonschema.Draft202012Validator(
        rewrite_one_of(schema)
    ).is_valid(value)


def test_multiplying_references_are_given_up_quickly() -> None:
    """Every level compares a hundred properties with a hundred: ten thousand million comparisons in 60 kB."""
    names = [f"p{number}" for number in range(100)]

    def level(number: int) -> dict[str, Any]:
        below = {"$ref": f"#/$defs/L{number + 1}"}
        return {"type": "object", "required": names, "properties": dict.fromkeys(names, below)}

    definitions = {**{f"L{number}": level(number) for number in range(4)}, "L4": {"type": "string"}}
    assert not settled(level(0), level(0), **{"$defs": definitions})
