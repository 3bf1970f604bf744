"""A model with a sliding window in every other layer: its cache can be cut if those layers keep the whole context."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from atelier.settings.groups import Load
from tests.support.models.tiny_llama import write_tiny_llama
from worker.engine.model.context import Context, generation_params
from worker.engine.model.decode_run import Run
from worker.engine.model.loaded_model import LlamaLog, LoadedModel

pytestmark = pytest.mark.system

PROMPT = [3 + (7 * number) % 250 for number in range(400)]  # longer than the window's cells, which are 256 at least
CUT = 100
NEXT = 40


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "tiny.gguf", architecture="gemma2", quantised=True)


@pytest.fixture
def log() -> LlamaLog:
    return LlamaLog()


@pytest.fixture
def context(model_path: Path, log: LlamaLog, request: pytest.FixtureRequest) -> Iterator[Context]:
    load = Load(context_length=512, parallel=2, device="cpu", ubatch_size=32, swa_full=request.param)
    model = LoadedModel(str(model_path), load, log, lambda _: True)
    assert model.sliding_window
    assert model.can_cut == request.param
    context = Context(model, generation_params(load, on_gpu=False), log)
    yield context
    context.close()
    model.close()


def compute(context: Context, slot: int, tokens: list[int]) -> None:
    for start in range(0, len(tokens), 50):
        run = tokens[start : start + 50]
        context.decode_runs([Run(slot=slot, tokens=run, start=start, silent=len(run))])


def logits_after(context: Context, slot: int, tokens: int) -> NDArray[np.float32]:
    context.decode_runs([Run(slot=slot, tokens=[NEXT], start=tokens, silent=0)])
    return context.logits(0).copy()


def computed_anew(context: Context) -> NDArray[np.float32]:
    compute(context, 1, PROMPT[:CUT])
    return logits_after(context, 1, CUT)


@pytest.mark.parametrize("context", [True], indirect=True)
def test_with_the_whole_context_a_cut_prompt_continues_as_one_computed_anew(context: Context) -> None:
    expected = computed_anew(context)
    compute(context, 0, PROMPT)
    context.copy(0, 1)
    for slot in (0, 1):
        context.keep_prefix(slot, CUT)
        assert np.array_equal(logits_after(context, slot, CUT), expected)


@pytest.mark.parametrize("context", [False], indirect=True)
def test_with_the_window_alone_it_does_not(context: Context) -> None:
    expected = computed_anew(context)
    compute(context, 0, PROMPT)
    context.keep_prefix(0, CUT)
    assert not np.allclose(logits_after(context, 0, CUT), expected, atol=1e-3)
