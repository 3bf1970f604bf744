"""Load settings as llama.cpp applies them, with small models."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from llama_cpp import llama_cpp as ll

from atelier.launch import LaunchSpec
from atelier.settings.groups import Load
from tests.support.models.tiny_llama import write_tiny_llama
from worker.engine.model.batch_invariance import SEPARATE
from worker.engine.model.context import Context, decode_threads, open_context
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
    return opened.enter_context(closing(open_context(model, load, log, decode_threads(spec, SEPARATE))))


def test_prompts_are_computed_with_threads_of_their_own(tmp_path: Path, log: LlamaLog, opened: ExitStack) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    context = open_tiny(path, Load(context_length=256, device="cpu", threads=1, threads_batch=2), log, opened)
    assert (ll.llama_n_threads(context.handle), ll.llama_n_threads_batch(context.handle)) == (1, 2)
