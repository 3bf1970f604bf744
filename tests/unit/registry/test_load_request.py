"""Requested load settings that a model's file does not allow."""

from pathlib import Path
from typing import Any

import pytest

from atelier.errors import InvalidRequest
from atelier.settings import Load
from registry.instances.load_request import PresetLayers, ResolvedLoad, need_of, resolve_load
from registry.models.model_record import Model, Stamp
from registry.models.split_files import read_facts
from tests.support.models.gguf_files import write_gguf

EXPERTS = {"llama.expert_count": 8, "llama.expert_used_count": 2}


def model(path: Path, **extra: Any) -> Model:
    facts = read_facts(write_gguf(path / "a.gguf", extra={name.replace("__", "."): v for name, v in extra.items()}))
    return Model(
        key="acme/a",
        path=path / "a.gguf",
        source=path / "a.gguf",
        display_name="a",
        facts=facts,
        stamp=Stamp(1, 1),
        imported_at=0.0,
    )


def resolved(of: Model, **requested: Any) -> ResolvedLoad:
    def find(name: str) -> Model:
        raise AssertionError(name)

    return resolve_load(of, requested, find, PresetLayers())


def refused(of: Model, **requested: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refusal:
        resolved(of, **requested)
    return refusal.value


def test_a_longer_context_than_the_trained_one_requires_rope_scaling(tmp_path: Path) -> None:
    trained = model(tmp_path)
    refusal = refused(trained, context_length=4096)
    assert refusal.param == "context_length"
    assert "at most 2048" in refusal.message
    assert "rope_scaling" in refusal.message
    assert resolved(trained, context_length=4096, rope_scaling="yarn").load.context_length == 4096


def test_the_number_of_experts_is_limited_by_the_file(tmp_path: Path) -> None:
    mixture = model(tmp_path, **EXPERTS)
    assert resolved(mixture, num_experts=8).load.num_experts == 8
    refusal = refused(mixture, num_experts=9)
    assert (refusal.param, refusal.message) == ("num_experts", "num_experts is at most 8 for acme/a, not 9.")


@pytest.mark.parametrize(
    ("extra", "reason"),
    [({}, "not a mixture of experts"), ({**EXPERTS, "llama.expert_used_count": [1, 2]}, "of their own")],
)
def test_a_model_whose_experts_cannot_be_chosen_says_so(tmp_path: Path, extra: dict[str, Any], reason: str) -> None:
    refusal = refused(model(tmp_path, **extra), num_experts=1)
    assert refusal.param == "num_experts"
    assert reason in refusal.message


@pytest.mark.parametrize(
    ("load", "param"),
    [
        ({"kv_type": "q8_0"}, "kv_type"),
        ({"v_type": "q4_0"}, "v_type"),
        ({"kv_type": "f16", "v_type": "q8_0"}, "v_type"),
    ],
)
def test_quantised_values_require_flash_attention(tmp_path: Path, load: dict[str, Any], param: str) -> None:
    assert refused(model(tmp_path), flash_attention=False, **load).param == param
    assert resolved(model(tmp_path), flash_attention=None, **load)
    assert resolved(model(tmp_path), flash_attention=False, k_type="q8_0")


def test_a_malformed_override_is_rejected_before_anything_is_loaded(tmp_path: Path) -> None:
    assert refused(model(tmp_path), override_tensor=["(exps=cpu"]).param == "override_tensor"


def test_tensors_that_are_placed_by_name_are_part_of_what_a_model_needs(tmp_path: Path) -> None:
    tensor = 80  # bytes: 128 weights in Q4_1
    need = need_of(model(tmp_path), ResolvedLoad(Load(override_tensor=[r"blk\.1\.=cpu"]), {}, None))
    assert (need.estimate.fixed, need.layered) == ({"cpu": tensor}, tensor)
    assert need_of(model(tmp_path), ResolvedLoad(Load(), {}, None)).estimate.fixed == {}
