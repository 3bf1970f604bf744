"""Resolution of names to models and instances."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import InvalidRequest, ModelNotFound
from atelier.names import (
    InstanceName,
    ModelName,
    check_identifier,
    check_key,
    find_name,
    may_mean,
    near_names,
    numbered_id,
)

KEYS = ["huggingfacetb/smollm2-135m-instruct", "qwen/qwen3-4b@q4_k_m", "qwen/qwen3-4b@q8_0", "qwen/qwen3-8b"]
SMOL = KEYS[0]
INSTANCES = [SMOL, f"{SMOL}:2", "my-model"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (SMOL, ModelName(SMOL)),
        ("smollm2-135m-instruct", ModelName(SMOL)),
        ("SmolLM2-135M-Instruct", ModelName(SMOL)),
        (f"{SMOL}:2", InstanceName(f"{SMOL}:2")),
        ("smollm2-135m-instruct:2", InstanceName(f"{SMOL}:2")),
        ("my-model", InstanceName("my-model")),
        ("qwen3-4b@q8_0", ModelName("qwen/qwen3-4b@q8_0")),
    ],
)
def test_a_name_is_resolved(name: str, meant: ModelName | InstanceName) -> None:
    assert find_name(name, KEYS, INSTANCES) == meant


def test_an_ambiguous_short_name_lists_its_candidates() -> None:
    with pytest.raises(ModelNotFound, match="qwen/qwen3-4b@q4_k_m, qwen/qwen3-4b@q8_0"):
        find_name("qwen3-4b", KEYS, [])


def test_an_unknown_model_suggests_similar_names() -> None:
    with pytest.raises(ModelNotFound, match=SMOL):
        find_name("smolm2-135m", KEYS, [])


@pytest.mark.parametrize("beginning", ["smolm", "smollm3", "huggingfacetb/smol", "SmolLM"])
def test_a_prefix_of_a_models_name_suggests_the_model(beginning: str) -> None:
    assert near_names(beginning, KEYS) == [SMOL]


def test_an_unknown_instance_of_a_known_model_is_not_the_model() -> None:
    with pytest.raises(ModelNotFound):
        find_name(f"{SMOL}:9", KEYS, INSTANCES)


@pytest.mark.parametrize(("name", "means"), [("a/b@q4", True), ("B", True), ("a/b", True), ("c", False), ("", False)])
def test_a_short_name_may_refer_to_a_longer_key(name: str, means: bool) -> None:
    assert may_mean(name, "a/b@q4") is means


def test_without_models_the_error_says_how_to_get_one() -> None:
    with pytest.raises(ModelNotFound, match="atelier import"):
        find_name("x", [], [])


@given(name=st.text(max_size=500))
def test_any_text_is_either_found_or_rejected(name: str) -> None:
    with contextlib.suppress(ModelNotFound):
        assert find_name(name, KEYS, INSTANCES) in [*map(ModelName, KEYS), *map(InstanceName, INSTANCES)]


def test_an_error_does_not_repeat_a_long_name_in_full() -> None:
    with pytest.raises(ModelNotFound) as caught:
        find_name("x" * 100_000, KEYS, INSTANCES)
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("key", ["a", "/a", "a/", "../b", "a/..", "a/b/c", "a/b@", "a/.b", "a b/c", "a/b\x00", "a/b:2"])
def test_an_invalid_key_is_rejected(key: str) -> None:
    with pytest.raises(InvalidRequest):
        check_key(key)


@pytest.mark.parametrize("key", ["a/b", "Org-1/Model_2.5+x@q4_k_m"])
def test_a_valid_key_is_accepted(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("identifier", ["", "..", "a//b", "a\n", "-x", "x" * 201])
def test_an_invalid_identifier_is_rejected(identifier: str) -> None:
    with pytest.raises(InvalidRequest):
        check_identifier(identifier)


def test_instances_are_numbered_from_two() -> None:
    assert numbered_id("a/b", []) == "a/b"
    assert numbered_id("a/b", ["a/b"]) == "a/b:2"
    assert numbered_id("a/b", ["a/b", "a/b:3"]) == "a/b:2"


def test_suggestions_are_few_and_best_first() -> None:
    assert near_names("qwen3-8", KEYS)[0] == "qwen/qwen3-8b"
    assert len(near_names("q", KEYS * 10)) <= 3
