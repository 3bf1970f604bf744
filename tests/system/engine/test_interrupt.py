"""llama.cpp's calls are ended from another thread."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from atelier.settings import Load
from worker.engine.model.context import Context, DecodeInterrupted, generation_params
from worker.engine.model.decode_run import Run
from worker.engine.model.loaded_model import LlamaLog, LoadedModel

pytestmark = pytest.mark.system

PROMPT = list(range(100, 164))


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return LlamaLog()


@pytest.fixture(scope="module")
def context(starter_model: Path, log: LlamaLog) -> Iterator[Context]:
    load = Load(context_length=256, parallel=2)
    with ExitStack() as opened:
        model = opened.enter_context(closing(LoadedModel(str(starter_model), load, log, lambda _: True)))
        yield opened.enter_context(closing(Context(model, generation_params(load, on_gpu=False), log)))


def test_an_interrupted_call_leaves_the_tokens_before_it(context: Context, log: LlamaLog) -> None:
    def likeliest(slot: int) -> int:
        context.decode_runs([Run(slot, PROMPT[32:], 32, 31)])
        return int(context.logits(31).argmax())

    for slot in (0, 1):
        context.decode_runs([Run(slot, PROMPT[:32], 0, 31)])
    context.interrupt.set()
    with pytest.raises(DecodeInterrupted):
        context.decode_runs([Run(0, PROMPT[32:], 32, 31)])
    assert log.complaints() == "", "an interruption is no failure"
    context.interrupt.clear()
    assert likeliest(0) == likeliest(1)
