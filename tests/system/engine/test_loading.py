"""What a worker loads and what it rejects, with models made for the tests."""

import re
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from gguf import PoolingType

from atelier.errors import LoadFailed
from atelier.launch import LaunchSpec
from atelier.settings import Load
from tests.support.models.tiny_bert import write_tiny_bert
from tests.support.models.tiny_llama import LETTERS, write_tiny_llama
from worker.engine.model.loaded_model import LlamaLog
from worker.engine.model_loading import load_model

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return LlamaLog()


def try_to_load(path: Path, log: LlamaLog, draft: Path | None = None, **load: Any) -> None:
    spec = LaunchSpec(
        instance_id="test/model",
        engine="llama",
        model_path=str(path),
        draft_model_path=str(draft) if draft else None,
        load=Load(context_length=256, parallel=2, **load),
        address="",
        token="",
        grace_seconds=60,
    )
    load_model(spec, log, lambda _: True).close()


def test_a_model_with_a_sliding_window_does_not_speculate(tmp_path: Path, log: LlamaLog) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf", architecture="gemma2")
    try_to_load(path, log)
    with pytest.raises(LoadFailed, match=r"sliding window.*speculation off"):
        try_to_load(path, log, speculation="prompt_lookup")
    with pytest.raises(LoadFailed, match="without kv_unified"):
        try_to_load(path, log, speculation="prompt_lookup", swa_full=True, kv_unified=True)
    try_to_load(path, log, speculation="prompt_lookup", swa_full=True)


def test_a_model_with_a_shared_cache_saves_no_prompts_and_logs_it(tmp_path: Path, log: LlamaLog) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    with structlog.testing.capture_logs() as logs:
        try_to_load(path, log, cache_ram=1, cache_disk=1, kv_unified=True)
    assert [entry["event"] for entry in logs].count("cache_tier_off") == 1


@pytest.mark.parametrize("kind", ["sliding window", "embedding"])
def test_auto_is_off_where_the_model_supports_no_speculation_and_logs_it(
    tmp_path: Path, log: LlamaLog, kind: str
) -> None:
    if kind == "embedding":
        path = write_tiny_bert(tmp_path / "tiny.gguf", PoolingType.MEAN)
    else:
        path = write_tiny_llama(tmp_path / "tiny.gguf", architecture="gemma2")
    with structlog.testing.capture_logs() as logs:
        try_to_load(path, log, speculation="auto")
    assert [entry["event"] for entry in logs].count("speculation_off") == 1


def test_an_embedding_model_does_not_speculate(tmp_path: Path, log: LlamaLog) -> None:
    path = write_tiny_bert(tmp_path / "tiny.gguf", PoolingType.MEAN)
    try_to_load(path, log)
    with pytest.raises(LoadFailed, match="speculation off"):
        try_to_load(path, log, speculation="prompt_lookup")


@pytest.mark.parametrize("kv_unified", [True, False])
def test_other_models_speculate_with_any_type_of_cache(tmp_path: Path, log: LlamaLog, kv_unified: bool) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    try_to_load(path, log, speculation="prompt_lookup", kv_unified=kv_unified)


def test_a_model_with_the_same_vocabulary_drafts_for_another(tmp_path: Path, log: LlamaLog) -> None:
    main = write_tiny_llama(tmp_path / "main.gguf")
    draft = write_tiny_llama(tmp_path / "draft.gguf", seed=1)
    try_to_load(main, log, draft, speculation="draft_model")
    padded = write_tiny_llama(tmp_path / "padded.gguf", letters=[*LETTERS, "unused"])
    try_to_load(main, log, padded, speculation="draft_model")


@pytest.mark.parametrize(
    ("vocabulary", "reason"),
    [
        ({"letters": LETTERS[::-1]}, 'token 259 means "z" to it, and "a" to this model'),
        (
            {"letters": [f"word{number}" for number in range(200)]},
            "its vocabulary has 459 tokens, and this model's 285",
        ),
        ({"bos": 2}, "it begins or ends its texts with another token"),
        ({"architecture": "gemma2"}, "sliding window"),
    ],
)
def test_an_incompatible_draft_model_is_rejected_with_the_reason(
    tmp_path: Path, log: LlamaLog, vocabulary: dict[str, Any], reason: str
) -> None:
    main = write_tiny_llama(tmp_path / "main.gguf")
    draft = write_tiny_llama(tmp_path / "draft.gguf", **vocabulary)
    with pytest.raises(LoadFailed, match=re.escape(reason)) as caught:
        try_to_load(main, log, draft, speculation="draft_model")
    assert "draft_model" in caught.value.message


def test_an_embedding_model_cannot_be_a_draft_model(tmp_path: Path, log: LlamaLog) -> None:
    main = write_tiny_llama(tmp_path / "main.gguf")
    with pytest.raises(LoadFailed, match="embeddings"):
        try_to_load(main, log, write_tiny_bert(tmp_path / "bert.gguf", PoolingType.MEAN), speculation="draft_model")


def test_an_invalid_draft_model_is_rejected(tmp_path: Path, log: LlamaLog) -> None:
    main, broken = write_tiny_llama(tmp_path / "main.gguf"), tmp_path / "broken.gguf"
    broken.write_bytes(main.read_bytes()[:2000])
    with pytest.raises(LoadFailed, match="The draft model: The model could not be loaded"):
        try_to_load(main, log, broken, speculation="draft_model")
