"""Models with random weights are computed by llama.cpp, and their texts depend on what was before."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from llama_cpp import llama_cpp as ll
from numpy.typing import NDArray

from atelier.settings import Load
from tests.support.models.network_shapes import TINY_DENSE, TINY_SHAPES, NetworkShape
from tests.support.models.quantised_model import NotQuantised, write_quantised, write_quantised_random_model
from tests.support.models.random_model import write_random_model
from tests.support.models.starter_model import starter_file
from worker.engine.model.loaded_model import LlamaLog, LoadedModel

pytestmark = pytest.mark.system

PROMPT = tuple(range(10, 110))  # longer than the sliding window
OTHER = (200, *PROMPT[1:])  # differs where a sliding window no longer reaches


@contextmanager
def loaded(path: Path) -> Iterator[LoadedModel]:
    model = LoadedModel(str(path), Load(device="cpu"), LlamaLog(), lambda _: True)
    yield model
    model.close()


def logits(model: LoadedModel, prompt: tuple[int, ...]) -> NDArray[np.float32]:
    """Those after the prompt."""
    params = ll.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 256, 1, 1
    context = ll.llama_init_from_model(model.handle, params)
    tokens = (ll.llama_token * len(prompt))(*prompt)
    assert ll.llama_decode(context, ll.llama_batch_get_one(tokens, len(prompt))) == 0
    count = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model.handle))
    found = np.ctypeslib.as_array(ll.llama_get_logits_ith(context, -1), (count,)).copy()
    ll.llama_free(context)
    return found


@pytest.mark.parametrize("shape", TINY_SHAPES, ids=lambda shape: shape.name)
def test_a_tiny_model_of_each_kind_computes_texts_that_depend_on_the_first_token(
    tmp_path: Path, shape: NetworkShape
) -> None:
    with loaded(write_quantised_random_model(tmp_path / "tiny.gguf", shape)) as model:
        one, another = logits(model, PROMPT), logits(model, OTHER)
        assert np.isfinite(one).all()
        assert 1.5 < one.std() < 6
        assert np.abs(one - another).max() > 0.1
        assert bool(ll.llama_model_n_swa(model.handle)) == bool(shape.sliding_window)
        assert bool(ll.llama_model_is_recurrent(model.handle)) == (shape.architecture == "mamba2")
        assert bool(ll.llama_model_is_hybrid(model.handle)) == (shape.architecture == "qwen35")


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    one = write_random_model(tmp_path / "one.gguf", TINY_DENSE)
    assert write_random_model(tmp_path / "two.gguf", TINY_DENSE).read_bytes() == one.read_bytes()
    assert write_random_model(tmp_path / "three.gguf", TINY_DENSE, seed=1).read_bytes() != one.read_bytes()


def test_a_tokenizer_is_copied_with_its_template(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "tiny.gguf", TINY_DENSE, starter_file())
    with loaded(path) as model, loaded(starter_file()) as starter:
        assert model.chat_template == starter.chat_template
        assert _tokens(model) == _tokens(starter)
        best = int(logits(model, PROMPT).argmax())
        assert best > 16  # the first 17 are control tokens, which random weights never choose


def _tokens(model: LoadedModel) -> list[int]:
    text = b"<|im_start|>user\nThe sea is blue.<|im_end|>"
    found = (ll.llama_token * 64)()
    count = ll.llama_tokenize(ll.llama_model_get_vocab(model.handle), text, len(text), found, 64, False, True)
    return list(found[:count])


def test_progress_of_quantisation_ends_with_all_tensors(tmp_path: Path) -> None:
    plain = write_random_model(tmp_path / "plain.gguf", TINY_DENSE)
    shares: list[float] = []
    made = write_quantised(plain, tmp_path / "made.gguf", "q4_0", shares.append)
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert made.stat().st_size < plain.stat().st_size
    assert GGUFReader(made).fields["general.file_type"].contents() == ll.LLAMA_FTYPE_MOSTLY_Q4_0


def test_quantisation_passes_the_log_back(tmp_path: Path) -> None:
    lines: list[bytes] = []
    log = ll.llama_log_callback(lambda level, text, data: lines.append(text))
    ll.llama_log_set(log, ctypes.c_void_p(0))
    try:
        write_quantised_random_model(tmp_path / "tiny.gguf", TINY_DENSE)
        assert not lines
        assert not ll.llama_model_load_from_file(b"/nowhere", ll.llama_model_default_params())
        assert lines
    finally:
        ll.llama_log_set(ll.llama_log_callback(), None)


def test_a_file_that_is_no_model_is_not_quantised(tmp_path: Path) -> None:
    source = tmp_path / "text.gguf"
    source.write_text("no model")
    with pytest.raises(NotQuantised, match=r"text\.gguf as q8_0"):
        write_quantised(source, tmp_path / "made.gguf", "q8_0")
