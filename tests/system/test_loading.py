"""What a worker refuses to load, with models that are made for it."""

from pathlib import Path
from typing import Any

import pytest
from gguf import PoolingType

from atelier.errors import LoadFailed
from atelier.launch import LaunchSpec
from atelier.settings import Load
from tests.support.tiny_bert import write_tiny_bert
from tests.support.tiny_llama import write_tiny_llama
from worker.engine.llama_log import LlamaLog
from worker.engine.loading import load_model

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return LlamaLog()


def try_to_load(path: Path, log: LlamaLog, **load: Any) -> None:
    spec = LaunchSpec(
        instance_id="test/model",
        engine="llama",
        model_path=str(path),
        load=Load(context_length=256, parallel=2, **load),
        address="",
        token="",
        grace_seconds=60,
    )
    load_model(spec, log, lambda _: True).close()


def test_a_model_with_a_sliding_window_takes_back_no_guesses(tmp_path: Path, log: LlamaLog) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf", architecture="gemma2")
    try_to_load(path, log)
    with pytest.raises(LoadFailed, match=r"sliding window.*speculation off"):
        try_to_load(path, log, speculation="prompt_lookup")


def test_a_model_that_makes_embeddings_guesses_nothing(tmp_path: Path, log: LlamaLog) -> None:
    path = write_tiny_bert(tmp_path / "tiny.gguf", PoolingType.MEAN)
    try_to_load(path, log)
    with pytest.raises(LoadFailed, match="speculation off"):
        try_to_load(path, log, speculation="prompt_lookup")


@pytest.mark.parametrize("kv_unified", [True, False])
def test_other_models_guess_with_any_kind_of_cache(tmp_path: Path, log: LlamaLog, kv_unified: bool) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    try_to_load(path, log, speculation="prompt_lookup", kv_unified=kv_unified)
