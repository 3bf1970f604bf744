"""Checkpoints of llama.cpp's sequences: what continues from one equals, bit for bit, what is computed anew."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from atelier.errors import DecodeFailed
from atelier.settings.groups import Load
from tests.support.models.tiny_llama import write_tiny_llama
from worker.engine.model.context import Context, generation_params
from worker.engine.model.decode_run import Run
from worker.engine.model.loaded_model import LlamaLog, LoadedModel

pytestmark = pytest.mark.system

PROMPT = [3 + (7 * number) % 250 for number in range(400)]
PLACE = 100
ANSWER = 6


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return LlamaLog()


@pytest.fixture(params=["llama", "gemma2"])
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def context(architecture: str, tmp_path: Path, log: LlamaLog) -> Iterator[Context]:
    yield from opened(tmp_path, architecture, log, quantised=True)


@pytest.fixture
def precise_context(architecture: str, tmp_path: Path, log: LlamaLog) -> Iterator[Context]:
    """Where sums of 32 bits, in whatever order, agree to many digits."""
    yield from opened(tmp_path, architecture, log, quantised=False, kv_type="f32", flash_attention=False)


def opened(folder: Path, architecture: str, log: LlamaLog, *, quantised: bool, **load: Any) -> Iterator[Context]:
    settings = Load(context_length=512, parallel=3, device="cpu", ubatch_size=32, threads=1, **load)
    path = write_tiny_llama(folder / "tiny.gguf", architecture=architecture, quantised=quantised)
    model = LoadedModel(str(path), settings, log, lambda _: True)
    context = Context(model, generation_params(settings, on_gpu=False), log)
    yield context
    context.close()
    model.close()


def compute(context: Context, slot: int, tokens: list[int], start: int = 0) -> None:
    for at in range(0, len(tokens), 50):
        piece = tokens[at : at + 50]
        context.decode_runs([Run(slot=slot, tokens=piece, start=start + at, silent=len(piece))])


def continued(context: Context, slot: int, start: int) -> NDArray[Any]:
    """The logits of the next tokens."""
    logits = []
    for step in range(ANSWER):
        context.decode_runs([Run(slot=slot, tokens=[40 + step], start=start + step, silent=0)])
        logits.append(context.logits(0).copy())
    return np.stack(logits)


def computed_anew(context: Context, tokens: list[int], slot: int = 0) -> NDArray[Any]:
    compute(context, slot, tokens)
    logits = continued(context, slot, len(tokens))
    context.keep_prefix(slot, 0)
    return logits


def test_a_sequence_continues_from_a_checkpoint_in_any_slot(context: Context) -> None:
    expected = computed_anew(context, PROMPT[:PLACE])
    compute(context, 0, PROMPT[:PLACE])
    checkpoint = context.checkpoint(0)
    compute(context, 0, PROMPT[PLACE:], PLACE)
    compute(context, 1, PROMPT[::-1])  # the previous content does not matter
    context.put_state(1, context.state(0))
    for slot in (1, 0):
        context.put_checkpoint(slot, PLACE, checkpoint)
        assert np.array_equal(continued(context, slot, PLACE), expected)


def test_a_sequence_says_where_it_can_be_cut(precise_context: Context) -> None:
    """The cells of a window are added in the order in which they lie in its ring: rounding differs, and no more."""
    context = precise_context
    compute(context, 0, PROMPT)
    possible = [tokens for tokens in range(len(PROMPT) + 2) if context.can_continue(0, tokens)]
    assert possible == list(range(possible[0], len(PROMPT) + 1))
    place = max(possible[0], PLACE)
    expected = computed_anew(context, PROMPT[:place], slot=1)
    context.keep_prefix(0, place)
    assert np.allclose(continued(context, 0, place), expected, atol=1e-4)


@pytest.mark.parametrize("architecture", ["gemma2"], indirect=True)  # another's checkpoint is its whole sequence
def test_a_checkpoint_of_another_length_is_rejected_and_leaves_the_sequence_empty(context: Context) -> None:
    compute(context, 0, PROMPT[:PLACE])
    checkpoint = context.checkpoint(0)
    compute(context, 0, PROMPT[PLACE:], PLACE)
    with pytest.raises(DecodeFailed, match="not of its first 300 tokens"):
        context.put_checkpoint(0, 300, checkpoint)
    expected = computed_anew(context, PROMPT[:PLACE], slot=1)
    assert np.array_equal(computed_anew(context, PROMPT[:PLACE]), expected)


def test_a_truncated_checkpoint_is_rejected_and_leaves_the_sequence_empty(context: Context) -> None:
    expected = computed_anew(context, PROMPT[:PLACE], slot=1)
    compute(context, 0, PROMPT[:PLACE])
    with pytest.raises(DecodeFailed, match="could not be restored"):
        context.put_checkpoint(0, PLACE, context.checkpoint(0)[:-10])
    assert np.array_equal(computed_anew(context, PROMPT[:PLACE]), expected)


@pytest.mark.parametrize("replaced", [0, 2], ids=["source", "target"])
def test_a_state_is_restored_into_a_slot_that_llama_cpp_is_about_to_copy(context: Context, replaced: int) -> None:
    other = PROMPT[::-1]
    expected, others = computed_anew(context, PROMPT), computed_anew(context, other)
    compute(context, 1, other)
    state = context.state(1)
    compute(context, 0, PROMPT)
    context.copy(0, 2)
    context.put_state(replaced, state)
    for slot in (0, 2):
        assert np.array_equal(continued(context, slot, len(PROMPT)), others if slot == replaced else expected)


def test_a_slot_is_saved_as_what_was_copied_to_it(context: Context) -> None:
    expected = computed_anew(context, PROMPT)
    compute(context, 2, PROMPT[::-1])
    compute(context, 0, PROMPT)
    context.copy(0, 2)
    context.put_state(1, context.state(2))
    for slot in (0, 1, 2):
        assert np.array_equal(continued(context, slot, len(PROMPT)), expected)
