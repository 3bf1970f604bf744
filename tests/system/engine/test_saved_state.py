"""A sequence's state that llama.cpp saves, restored into another sequence: bit for bit the same results."""

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

PROMPT = [3 + (7 * number) % 250 for number in range(150)]
KINDS = ({}, {"kv_type": "f32"}, {"flash_attention": False})


@pytest.fixture(params=KINDS, ids=str)
def context(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Context]:
    log = LlamaLog()
    load = Load(context_length=256, parallel=3, device="cpu", **request.param)
    model = LoadedModel(str(write_tiny_llama(tmp_path / "tiny.gguf")), load, log, lambda _: True)
    context = Context(model, generation_params(load, on_gpu=False), log)
    yield context
    context.close()
    model.close()


def compute(context: Context, slot: int, tokens: list[int]) -> None:
    context.decode_runs([Run(slot=slot, tokens=tokens, start=0, silent=len(tokens))])


def goes_on(context: Context, slot: int, position: int) -> NDArray[Any]:
    """The logits of the next position; the computed token is removed again."""
    logits = []
    for step in range(4):
        context.decode_runs([Run(slot=slot, tokens=[40 + step], start=position + step, silent=0)])
        logits.append(context.logits(0).copy())
    context.keep_prefix(slot, position)
    return np.stack(logits)


@pytest.mark.parametrize("cut", [len(PROMPT), 64])
def test_a_restored_state_continues_as_the_computed_one(context: Context, cut: int) -> None:
    compute(context, 0, PROMPT)
    state = context.state(0)
    assert state.size == context.state_size(0)
    context.keep_prefix(0, cut)
    expected = goes_on(context, 0, cut)
    compute(context, 1, PROMPT[::-1])  # the previous content does not matter
    for slot in (1, 2, 0):
        context.put_state(slot, state)
        context.keep_prefix(slot, cut)
        assert np.array_equal(goes_on(context, slot, cut), expected)


def test_a_truncated_state_is_rejected_and_leaves_the_sequence_empty(context: Context) -> None:
    compute(context, 0, PROMPT)
    with pytest.raises(DecodeFailed):
        context.put_state(1, context.state(0)[:-100])
    compute(context, 1, PROMPT)
    assert np.array_equal(goes_on(context, 1, len(PROMPT)), goes_on(context, 0, len(PROMPT)))
