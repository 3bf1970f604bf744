"""Load settings as llama.cpp applies them, with small models."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from llama_cpp import llama_cpp as ll
from numpy.typing import NDArray

from atelier.launch import LaunchSpec
from atelier.settings.groups import Load
from tests.support.models.tiny_llama import LONGEST, write_tiny_llama
from worker.engine.model.batch_invariance import SEPARATE
from worker.engine.model.context import Context, decode_threads, generation_params, open_context
from worker.engine.model.decode_run import Run
from worker.engine.model.loaded_model import LlamaLog, LoadedModel

pytestmark = pytest.mark.system


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return LlamaLog()


def open_tiny(path: Path, load: Load, log: LlamaLog, opened: ExitStack) -> Context:
    spec = LaunchSpec(
        instance_id="test/model",
        engine="llama",
        model_path=str(path),
        load=load,
        address="",
        token="",
        grace_seconds=60,
    )
    model = opened.enter_context(closing(LoadedModel(spec.model_path, load, log, lambda _: True)))
    return opened.enter_context(closing(open_context(model, model.load, log, decode_threads(spec, SEPARATE))))


def test_prompts_are_computed_with_threads_of_their_own(tmp_path: Path, log: LlamaLog, opened: ExitStack) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    context = open_tiny(path, Load(context_length=256, device="cpu", threads=1, threads_batch=2), log, opened)
    assert (ll.llama_n_threads(context.handle), ll.llama_n_threads_batch(context.handle)) == (1, 2)


def test_yarn_extends_the_context_beyond_the_trained_one(tmp_path: Path, log: LlamaLog, opened: ExitStack) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    load = Load(context_length=2 * LONGEST, parallel=1, device="cpu", rope_scaling="yarn")
    context = open_tiny(path, load, log, opened)
    run = [3 + (7 * number) % 250 for number in range(LONGEST + 100)]
    scaled = last_logits(context, run)
    assert np.isfinite(scaled).all()
    plain = open_tiny(path, replace(load, rope_scaling="none"), log, opened)
    assert not np.allclose(last_logits(plain, run), scaled, atol=1e-3)


def test_an_extended_context_is_scaled_alike_in_each_context_of_the_model(
    tmp_path: Path, log: LlamaLog, opened: ExitStack
) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    load = Load(context_length=2 * LONGEST, parallel=1, device="cpu", rope_scaling="yarn")
    model = opened.enter_context(closing(LoadedModel(str(path), load, log, lambda _: True)))
    params = generation_params(model.load, on_gpu=False)
    first, second = (opened.enter_context(closing(Context(model, params, log))) for _ in range(2))
    assert (model.trained_length, model.load.rope_freq_scale) == (LONGEST, 0.5)
    assert np.array_equal(last_logits(first, [3, 4, 5]), last_logits(second, [3, 4, 5]))


def last_logits(context: Context, tokens: list[int]) -> NDArray[np.float32]:
    context.decode_runs([Run(slot=0, tokens=tokens, start=0, silent=len(tokens) - 1)])
    return context.logits(len(tokens) - 1).copy()
