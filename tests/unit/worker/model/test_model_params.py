"""The parameters with which llama.cpp loads a model, from load settings."""

from typing import Any

import pytest
from llama_cpp import llama_cpp as ll

from atelier.errors import LoadFailed
from atelier.settings.groups import Load
from worker.engine.model.model_params import ModelParams


def params(**load: Any) -> ll.llama_model_params:
    return ModelParams(Load(**load), "qwen3moe", lambda _: True).value


def test_a_model_is_split_by_layers_unless_one_gpu_is_requested() -> None:
    assert params().split_mode == ll.LLAMA_SPLIT_MODE_LAYER
    alone = params(split_mode="none", main_gpu=2)
    assert (alone.split_mode, alone.main_gpu) == (ll.LLAMA_SPLIT_MODE_NONE, 2)


@pytest.mark.parametrize(
    ("load", "layers"),
    [({}, -1), ({"gpu_layers": 7}, 7), ({"device": "cpu"}, 0), ({"device": "cpu", "gpu_layers": 7}, 0)],
)
def test_all_layers_are_offloaded_unless_a_number_or_the_cpu_is_requested(load: dict[str, Any], layers: int) -> None:
    assert params(**load).n_gpu_layers == layers


def test_shares_of_devices_are_passed_on() -> None:
    assert list(params(tensor_split=[3.0, 1.0]).tensor_split[:2]) == [3.0, 1.0]
    assert not params().tensor_split


def test_experts_used_replace_the_number_in_the_file() -> None:
    overrides = params(num_experts=3).kv_overrides
    assert overrides[0].tag == ll.LLAMA_KV_OVERRIDE_TYPE_INT
    assert (overrides[0].key, overrides[0].value.val_i64) == (b"qwen3moe.expert_used_count", 3)
    assert overrides[1].key == b""
    assert not params().kv_overrides


def test_overrides_of_tensors_end_with_an_empty_one() -> None:
    loaded = ModelParams(Load(override_tensor=[r"attn_q=cpu"], cpu_moe=True), "llama", lambda _: True)
    assert loaded.tensor_overrides is not None
    patterns = [each.pattern for each in loaded.tensor_overrides]
    assert patterns == [b"attn_q", rb"\.ffn_(up|down|gate|gate_up)_(ch|)exps", None]
    assert all(each.buffer_type for each in loaded.tensor_overrides[:2])
    assert ModelParams(Load(), "llama", lambda _: True).tensor_overrides is None


def test_a_device_that_the_worker_does_not_have_is_rejected() -> None:
    with pytest.raises(LoadFailed, match="override_tensor names cuda:7"):
        params(override_tensor=["exps=cuda:7"])
