"""How a model's memory depends on its shape and its load settings; tests/system compares it with llama.cpp."""

import dataclasses
import json
from pathlib import Path

import pytest

from atelier.settings import Load
from registry.models.memory_estimate import estimate_memory
from registry.models.model_shape import Shape
from registry.models.split_files import read_facts
from registry.wire import estimate_message
from tests.support.models.gguf_files import write_gguf

SHAPE = Shape(
    tensor_bytes=1000,
    embedding_length=64,
    vocabulary=100,
    heads=4,
    feed_forward=128,
    experts=0,
    experts_used=(),
    expert_feed_forward=0,
    key_widths=(32, 32),
    value_widths=(32, 32),
    sliding_window=0,
    sliding_layers=(False, False),
    state=0,
    recurrent_layers=0,
    tensor_sizes={"blk.0.attn_q.weight": 500},
)
CELL = 2 * (32 + 32) * 2  # bytes: two layers, f16


def kv_cache(shape: Shape = SHAPE, **load: object) -> int:
    with_defaults = {"context_length": 1024, "parallel": 4, "checkpoints": 0, **load}
    return estimate_memory(shape, Load(**with_defaults)).kv_cache  # type: ignore[arg-type]


def test_every_sequence_has_a_separate_cache_unless_it_is_unified() -> None:
    assert kv_cache() == 4 * 1024 * CELL
    assert kv_cache(kv_unified=True) == 1024 * CELL


def test_the_cache_grows_in_whole_steps() -> None:
    assert kv_cache(context_length=1025, parallel=1) == 1280 * CELL


def test_quantised_caches_are_smaller_by_their_blocks() -> None:
    assert kv_cache(kv_type="q8_0") == 4 * 1024 * CELL * 34 // 64
    assert kv_cache(kv_type="f32") == 4 * 1024 * CELL * 2


def test_keys_and_values_may_have_types_of_their_own() -> None:
    assert kv_cache(k_type="f32") == 4 * 1024 * (CELL + CELL // 2)
    assert kv_cache(kv_type="q8_0", v_type="f32") == 4 * 1024 * (CELL * 34 // 128 + CELL)
    assert kv_cache(k_type="q8_0", v_type="q8_0") == kv_cache(kv_type="q8_0")


def test_a_sliding_layer_holds_its_window_and_a_batch() -> None:
    sliding = dataclasses.replace(SHAPE, sliding_window=256, sliding_layers=(True, False))
    assert kv_cache(sliding, context_length=8192, parallel=1) == (8192 + 768) * CELL // 2
    assert kv_cache(sliding, context_length=512, parallel=1) == 512 * CELL
    assert kv_cache(sliding, context_length=8192, parallel=1, swa_full=True) == 8192 * CELL


def test_recurrent_layers_keep_a_state_for_each_sequence() -> None:
    recurrent = dataclasses.replace(SHAPE, key_widths=(0, 32), value_widths=(0, 32), state=500, recurrent_layers=1)
    assert kv_cache(recurrent) == 4 * 1024 * CELL // 2 + 500 * 4 * 4


def test_checkpoints_keep_a_sequences_state_and_its_windows() -> None:
    sliding = dataclasses.replace(SHAPE, sliding_window=256, sliding_layers=(True, False))
    recurrent = dataclasses.replace(SHAPE, key_widths=(0, 32), value_widths=(0, 32), state=500, recurrent_layers=1)

    def checkpoints(shape: Shape, **load: object) -> int:
        return kv_cache(shape, checkpoints=3, **load) - kv_cache(shape, **load)

    assert checkpoints(sliding) == 3 * 4 * 256 * CELL // 2
    assert checkpoints(sliding, context_length=128) == 3 * 4 * 128 * CELL // 2
    assert checkpoints(recurrent) == 3 * 4 * 500 * 4
    assert checkpoints(SHAPE) == checkpoints(sliding, swa_full=True) == checkpoints(recurrent, kv_unified=True) == 0


def test_without_flash_attention_the_scores_grow_with_the_context() -> None:
    def compute(length: int, flash: bool) -> int:
        return estimate_memory(SHAPE, Load(context_length=length, flash_attention=flash)).compute

    assert compute(65_536, False) > 3 * compute(65_536, True)
    assert compute(65_536, False) > 7 * compute(8192, False)


def test_tensors_placed_by_name_are_a_part_of_the_weights() -> None:
    estimate = estimate_memory(SHAPE, Load(override_tensor=["attn_q=cpu"]))
    assert (estimate.weights, estimate.fixed) == (1000, {"cpu": 500})
    assert estimate_message(estimate).weights_in_main_memory == 500
    assert (estimate + estimate).fixed == {"cpu": 1000}


def test_fewer_experts_need_smaller_buffers() -> None:
    mixture = dataclasses.replace(SHAPE, experts=8, experts_used=(4,), expert_feed_forward=4096)

    def compute(**load: int) -> int:
        return estimate_memory(mixture, Load(**load)).compute

    assert compute(num_experts=2) < compute() == compute(num_experts=4) < compute(num_experts=8)


def test_a_model_that_only_embeds_has_no_cache() -> None:
    estimate = estimate_memory(SHAPE, Load(), embeds_only=True)
    assert estimate.kv_cache == 0
    assert estimate.total == estimate.weights + estimate.compute


@pytest.mark.parametrize(
    ("architecture", "pattern", "sliding"),
    [("gemma3", None, [True] * 5 + [False]), ("llama", None, [False] * 6), ("llama", 2, [True, False] * 3)],
)
def test_sliding_layers_are_given_by_the_file_or_its_architecture(
    tmp_path: Path, architecture: str, pattern: int | None, sliding: list[bool]
) -> None:
    extra = {f"{architecture}.attention.sliding_window": 512}
    if pattern:
        extra[f"{architecture}.attention.sliding_window_pattern"] = pattern
    path = write_gguf(tmp_path / "a.gguf", architecture=architecture, layers=6, extra=extra)
    shape = read_facts(path).shape
    assert shape is not None
    assert list(shape.sliding_layers) == sliding


def test_values_per_layer_are_read(tmp_path: Path) -> None:
    extra = {"llama.attention.head_count": 8, "llama.attention.head_count_kv": [2, 0], "llama.ssm.inner_size": 64}
    shape = read_facts(write_gguf(tmp_path / "a.gguf", extra={**extra, "llama.ssm.state_size": 16})).shape
    assert shape is not None
    assert shape.key_widths == (8, 0)
    assert (shape.state, shape.recurrent_layers) == (64 * 16, 1)
    assert shape.vocabulary == 16


def test_absurd_values_in_a_header_are_limited(tmp_path: Path) -> None:
    extra = {"llama.attention.head_count": 2**32 - 1, "llama.attention.key_length": 2**32 - 1}
    shape = read_facts(write_gguf(tmp_path / "a.gguf", extra=extra)).shape
    assert shape is not None
    assert max(shape.key_widths) < 2**25
    assert estimate_message(estimate_memory(shape, Load(context_length=2**24, parallel=256))).kv_cache < 2**64


def test_a_shape_survives_the_database() -> None:
    assert Shape.from_json(json.loads(json.dumps(dataclasses.asdict(SHAPE)))) == SHAPE
