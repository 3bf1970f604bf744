"""Which files are adapters for a model, judged by their headers."""

from pathlib import Path
from typing import Any

import pytest

from atelier.errors import InvalidModelFile, InvalidRequest, UnsupportedField
from registry.models.adapter_files import check_adapter
from registry.models.gguf_header import read_header
from tests.support.models.gguf_files import write_gguf
from tests.support.models.lora_files import write_lora_header


def refusal(path: Path, architecture: str = "llama") -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check_adapter(read_header(path), architecture)
    return caught.value


def test_a_lora_of_the_models_architecture_fits(tmp_path: Path) -> None:
    check_adapter(read_header(write_lora_header(tmp_path / "a.gguf", "qwen3")), "qwen3")


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ({"general_type": "model"}, 'general.type is "model"'),
        ({"general_type": None}, "general.type is not given"),
        ({"adapter_type": "control"}, 'adapter.type is "control"'),
        ({"adapter_type": None}, "adapter.type is not given"),
        ({"architecture": "qwen3"}, 'architecture "qwen3", not llama'),
        ({"tensors": 0}, "no tensors"),
    ],
)
def test_an_adapter_that_does_not_fit_is_reported(tmp_path: Path, facts: dict[str, Any], complaint: str) -> None:
    error = refusal(write_lora_header(tmp_path / "a.gguf", **facts))
    assert isinstance(error, InvalidModelFile)
    assert complaint in error.message


def test_a_model_is_rejected_as_an_adapter(tmp_path: Path) -> None:
    assert "not an adapter" in refusal(write_gguf(tmp_path / "a.gguf")).message


def test_an_activated_lora_is_rejected(tmp_path: Path) -> None:
    error = refusal(write_lora_header(tmp_path / "a.gguf", invocation_tokens=(1, 2, 3)))
    assert isinstance(error, UnsupportedField)
    assert "aLoRA" in error.message
