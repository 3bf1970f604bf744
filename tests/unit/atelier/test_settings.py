"""Settings: declared once, resolved field by field, the same on both ends of the wire."""

import dataclasses
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from atelier.errors import InvalidRequest
from atelier.settings import TABLE, Group, Inference, Layer, Load, Prompt, resolve
from atelier.settings.resolution import BUILT_IN
from atelier.settings.settings_schema import fields_model
from atelier.settings.settings_table import load_message, load_values, sampling_message, sampling_settings
from protos.settings_pb2 import LoadSettings, SamplingSettings

temperatures = st.none() | st.floats(0, 5)
ROWS = [(group, row) for group in TABLE for row in TABLE[group].values()]


def descriptor_names(descriptor: Descriptor) -> set[str]:
    return {field.name for field in descriptor.fields}


@given(values=st.lists(temperatures, max_size=5))
def test_the_highest_layer_that_sets_a_field_wins(values: list[float | None]) -> None:
    layers = [Layer(f"layer {i}", {"temperature": value}) for i, value in enumerate(values)]
    won = resolve(Inference, layers).values["temperature"]
    first = next(((i, v) for i, v in enumerate(values) if v is not None), None)
    assert (won.value, won.origin) == ((first[1], f"layer {first[0]}") if first else (0.8, BUILT_IN))


@given(value=st.floats(0, 5), other=st.integers(0, 100))
def test_a_field_is_resolved_whatever_the_other_fields_are(value: float, other: int) -> None:
    resolved = resolve(Inference, [Layer("a", {"top_k": other}), Layer("b", {"temperature": value, "top_k": 1})])
    assert resolved.build() == Inference(temperature=value, top_k=other)


@pytest.mark.parametrize("kind", [Load, Prompt, Inference])
def test_without_settings_the_built_in_defaults_apply(kind: Any) -> None:
    assert resolve(kind, []).build() == kind()


@pytest.mark.parametrize("value", [-0.1, 5.1, float("nan"), float("inf")])
def test_a_value_out_of_bounds_names_its_field(value: float) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve(Inference, [Layer("request", {"temperature": value})])
    assert caught.value.param == "temperature"
    assert "between 0 and 5" in caught.value.message


def test_bounds_hold_inside_maps_and_lists_too() -> None:
    for values in ({"logit_bias": {1: float("nan")}}, {"logit_bias": {1: 101.0}}):
        with pytest.raises(InvalidRequest):
            resolve(Inference, [Layer("request", values)])
    with pytest.raises(InvalidRequest):
        resolve(Load, [Layer("request", {"tensor_split": [-1.0]})])
    with pytest.raises(InvalidRequest):
        resolve(Prompt, [Layer("request", {"stop": ["x"] * 17})])


@pytest.mark.parametrize(("group", "row"), ROWS, ids=lambda value: getattr(value, "name", value))
def test_every_default_is_within_its_own_bounds(group: Group, row: Any) -> None:
    assert row.check(row.default) == row.default
    assert row.facts.description.endswith(".")


def test_the_wire_has_exactly_the_declared_settings() -> None:
    assert descriptor_names(LoadSettings.DESCRIPTOR) == set(TABLE["load"])
    assert descriptor_names(SamplingSettings.DESCRIPTOR) == {*TABLE["inference"], "stop"}


loads = st.builds(
    Load,
    context_length=st.integers(128, 2**24),
    cores=st.none() | st.just("0-3"),
    gpu_layers=st.none() | st.integers(0, 100),
    tensor_split=st.lists(st.floats(0, 1), max_size=4),
    flash_attention=st.none() | st.booleans(),
    mmap=st.booleans(),
    lora=st.lists(st.text(), max_size=4),
)
inferences = st.builds(
    Inference,
    temperature=st.floats(0, 5),
    seed=st.none() | st.integers(0, 2**32 - 2),
    max_tokens=st.none() | st.integers(1, 2**31 - 1),
    logit_bias=st.dictionaries(st.integers(0, 2**32 - 1), st.floats(-100, 100), max_size=4),
    ignore_eos=st.booleans(),
)


@given(load=loads)
def test_load_settings_survive_the_wire(load: Load) -> None:
    assert Load(**load_values(LoadSettings.FromString(load_message(load).SerializeToString()))) == load


@given(inference=inferences, stop=st.lists(st.text(), max_size=3))
def test_sampling_settings_survive_the_wire(inference: Inference, stop: list[str]) -> None:
    message = SamplingSettings.FromString(sampling_message(inference, stop).SerializeToString())
    assert sampling_settings(message) == (inference, stop)


@given(value=st.one_of(st.integers(-(2**70), -1), st.integers(2**33, 2**70), st.text(), st.booleans(), st.floats()))
def test_an_invalid_seed_is_rejected_in_requests(value: Any) -> None:
    model = fields_model("Seed", [("seed", TABLE["inference"]["seed"])])
    with pytest.raises(ValidationError):
        model.model_validate({"seed": value})


def test_groups_do_not_share_names() -> None:
    names = [row.name for _, row in ROWS]
    assert len(names) == len(set(names)) == sum(len(dataclasses.fields(kind)) for kind in (Load, Prompt, Inference))
