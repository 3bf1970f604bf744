"""The parameters of a llama.cpp context, from load settings."""

from typing import Any

import pytest
from llama_cpp import llama_cpp as ll

from atelier.settings.groups import Load
from worker.engine.model.batch_invariance import FREE, cache_types, grouping
from worker.engine.model.context import Threads, generation_params

Q4_1 = "3"  # general.file_type


@pytest.mark.parametrize(
    ("load", "types"),
    [
        ({"kv_type": "q8_0"}, ("q8_0", "q8_0")),
        ({"k_type": "q8_0"}, ("q8_0", "f16")),
        ({"v_type": "q4_0"}, ("f16", "q4_0")),
        ({"kv_type": "q8_0", "v_type": "f16"}, ("q8_0", "f16")),
        ({"kv_type": "q8_0", "k_type": "f16", "v_type": "f32"}, ("f16", "f32")),
    ],
)
@pytest.mark.parametrize("on_gpu", [True, False])
def test_keys_and_values_have_their_own_type_or_the_shared_one(
    load: dict[str, Any], types: tuple[str, str], on_gpu: bool
) -> None:
    assert cache_types(Load(**load), on_gpu=on_gpu) == types


def test_types_reach_llama_cpp() -> None:
    params = generation_params(Load(k_type="q8_0", v_type="f16"), on_gpu=True)
    assert (params.type_k, params.type_v) == (ll.GGML_TYPE_Q8_0, ll.GGML_TYPE_F16)


def test_two_types_leave_one_path_through_attention() -> None:
    load = Load(k_type="q8_0", v_type="f16", reproducible=True)
    assert grouping(load, Q4_1, on_gpu=False).decode
    assert not grouping(load, Q4_1, on_gpu=True).slices


def test_tokens_are_grouped_freely_and_keys_are_like_values_unless_texts_must_be_reproducible() -> None:
    assert grouping(Load(), Q4_1, on_gpu=True) == FREE
    assert cache_types(Load(), on_gpu=False) == ("f16", "f16")
    assert cache_types(Load(reproducible=True), on_gpu=False) == ("bf16", "f16")
    assert cache_types(Load(reproducible=True), on_gpu=True) == ("f16", "f16")


def test_calls_of_several_tokens_may_have_threads_of_their_own() -> None:
    params = generation_params(Load(threads=2, threads_batch=5), on_gpu=False)
    assert (params.n_threads, params.n_threads_batch) == (2, 5)
    params = generation_params(Load(threads=2), on_gpu=False)
    assert (params.n_threads, params.n_threads_batch) == (2, 2)
    assert (Threads(2, 5).count, Threads(2, 5).batch_count) == (2, 5)
    assert Threads(2).batch_count == 2
    assert Threads(batch=5).batch_count == 5


def test_the_sliding_window_is_kept_whole_on_request() -> None:
    assert generation_params(Load(swa_full=True), on_gpu=False).swa_full
    assert not generation_params(Load(), on_gpu=False).swa_full
