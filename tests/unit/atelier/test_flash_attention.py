"""Where flash attention is used without being requested."""

from typing import Any

import pytest

from atelier.flash_attention import MOST_SCORES, score_bytes, uses_flash_attention
from atelier.settings import Load

HEADS, WIDTH = 32, 2048


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("requested", [False, True])
def test_it_is_used_as_requested(requested: bool, on_gpu: bool) -> None:
    load = Load(flash_attention=requested, context_length=1_000_000, reproducible=True)
    assert uses_flash_attention(load, HEADS, WIDTH, on_gpu=on_gpu) is requested


def test_llama_cpp_decides_on_a_gpu() -> None:
    assert uses_flash_attention(Load(), HEADS, WIDTH, on_gpu=True) is None


def test_on_a_cpu_it_is_not_used() -> None:
    assert uses_flash_attention(Load(context_length=4096), HEADS, WIDTH, on_gpu=False) is False
    assert uses_flash_attention(Load(context_length=4096, k_type="q8_0"), HEADS, WIDTH, on_gpu=False) is False


@pytest.mark.parametrize(
    "settings", [{"reproducible": True}, {"kv_type": "q8_0"}, {"v_type": "q4_0"}, {"context_length": 8193}]
)
def test_on_a_cpu_it_is_used_where_something_needs_it(settings: dict[str, Any]) -> None:
    assert uses_flash_attention(Load(**{"context_length": 4096, **settings}), HEADS, WIDTH, on_gpu=False) is True


def test_smaller_graphs_and_fewer_heads_leave_room_for_longer_contexts() -> None:
    assert score_bytes(Load(context_length=8192), HEADS) == MOST_SCORES
    for load, heads in [
        (Load(context_length=16_384), HEADS // 2),
        (Load(context_length=16_384, ubatch_size=256), HEADS),
        (Load(context_length=16_384, batch_size=256), HEADS),
    ]:
        assert uses_flash_attention(load, heads, WIDTH, on_gpu=False) is False


def test_small_models_use_it() -> None:
    load = Load(context_length=4096)
    assert [uses_flash_attention(load, 8, width, on_gpu=False) for width in (576, 1023, 1024)] == [True, True, False]
