"""The scales that a request selects for an instance's adapters."""

import pytest

from atelier.errors import InvalidRequest
from atelier.lora_adapters import Adapter, AdapterScale
from worker.engine.model.lora import choose_scales

POET = Adapter("poet", "/adapters/poet.gguf", 0.5)
CLERK = Adapter("clerk", "/adapters/clerk.gguf", 1.0)
OFF = Adapter("off", "/adapters/off.gguf", 0.0)


def test_without_requested_scales_every_adapter_has_its_default() -> None:
    assert choose_scales([], [POET, CLERK, OFF]) == (0.5, 1.0, 0.0)


def test_an_adapter_is_requested_by_id_or_by_name_and_the_others_are_off() -> None:
    assert choose_scales([AdapterScale(1, 2.0)], [POET, CLERK]) == (0.0, 2.0)
    assert choose_scales([AdapterScale("poet", -1.0)], [POET, CLERK]) == (-1.0, 0.0)


def test_scales_of_zero_select_the_model_alone() -> None:
    assert choose_scales([], []) == choose_scales([], [OFF]) == choose_scales([AdapterScale("poet", 0)], [POET]) == ()


def test_an_integer_is_an_id_and_a_string_is_a_name() -> None:
    numbered = Adapter("0", "/adapters/0.gguf", 1.0)
    assert choose_scales([AdapterScale("0", 0.25)], [POET, numbered]) == (0.0, 0.25)
    assert choose_scales([AdapterScale(0, 0.25)], [POET, numbered]) == (0.25, 0.0)


@pytest.mark.parametrize(("requested", "field"), [(2, "lora[1].id"), ("Poet", "lora[1].name")])
def test_an_unknown_adapter_is_rejected_by_field_name_with_the_known_ones(requested: int | str, field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        choose_scales([AdapterScale(0, 1.0), AdapterScale(requested, 1.0)], [POET, CLERK])
    assert refusal.value.param == field
    assert '0 "poet", 1 "clerk"' in refusal.value.message


def test_an_instance_without_adapters_says_so() -> None:
    with pytest.raises(InvalidRequest, match="none: load it with adapters"):
        choose_scales([AdapterScale(0, 1.0)], [])


def test_an_adapter_named_twice_is_rejected() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        choose_scales([AdapterScale(0, 1.0), AdapterScale("poet", 0.5)], [POET])
    assert refusal.value.param == "lora[1]"
