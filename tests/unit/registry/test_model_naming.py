"""Keys and names of models."""

from pathlib import Path

import pytest

from atelier.names import check_key, find_name
from registry.models.model_facts import ModelFacts
from registry.models.model_naming import FileOrigin, display_name, free_key, key_for, name_part, origin_in, origin_of

FACTS = ModelFacts(
    title="Some Title",
    architecture="llama",
    quantization="Q4_K_M",
    bits_per_weight=4.8,
    size_bytes=1,
    parameters=1,
    layers=1,
    context_length=1,
    embedding_length=1,
)
MODELS = Path("/data/models")


def key_in_models(relative: str) -> str:
    path = MODELS / relative
    origin = origin_in(MODELS, path)
    return key_for(origin.publisher, display_name(path, origin, FACTS))


def test_the_starter_model_has_its_short_name() -> None:
    key = key_in_models("HuggingFaceTB/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert key == "huggingfacetb/smollm2-135m-instruct"
    assert find_name("smollm2-135m-instruct", [key], []) == find_name(key, [key], [])


@pytest.mark.parametrize(
    ("relative", "key"),
    [
        ("unsloth/Qwen3-8B-GGUF/Qwen3-8B-UD-Q4_K_XL.gguf", "unsloth/qwen3-8b"),
        ("ggml-org/gpt-oss-20b-GGUF/gpt-oss-20b-mxfp4.gguf", "ggml-org/gpt-oss-20b"),
        ("nomic-ai/nomic-embed-text-v1.5-GGUF/nomic-embed-text-v1.5.f16.gguf", "nomic-ai/nomic-embed-text-v1.5"),
        ("a/Big-GGUF/Big-Q8_0-00001-of-00003.gguf", "a/big"),
        ("a/Nice-Model-GGUF/ggml-model-q4_0.gguf", "a/nice-model"),
        ("a/model.gguf", "a/some-title"),
        ("loose file (1).gguf", "local/loose-file-1"),
    ],
)
def test_keys_come_from_the_path(relative: str, key: str) -> None:
    assert key_in_models(relative) == key
    assert check_key(key)


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        ("/home/me/.lmstudio/models/Org/Repo-GGUF/file.gguf", FileOrigin("Org", "Repo-GGUF")),
        ("/cache/hub/models--Org--Repo-GGUF/snapshots/0abc/file.gguf", FileOrigin("Org", "Repo-GGUF")),
        ("/home/me/Downloads/file.gguf", FileOrigin("", "")),
    ],
)
def test_publishers_are_read_from_other_programs_folders(path: str, origin: FileOrigin) -> None:
    assert origin_of(Path(path)) == origin


def test_a_second_file_of_a_name_becomes_a_variant() -> None:
    taken = {"a/b"}
    assert free_key("a/c", "Q4_K_M", taken) == "a/c"
    assert free_key("a/b", "Q4_K_M", taken) == "a/b@q4_k_m"
    assert free_key("a/b", "Q4_K_M", taken | {"a/b@q4_k_m"}) == "a/b@q4_k_m-2"


@pytest.mark.parametrize("text", ["../../etc", "...", "ÜÖÄ", "a b/c:d@e", "x" * 500, "-.-"])
def test_any_text_becomes_a_valid_part_of_a_key_or_nothing(text: str) -> None:
    part = name_part(text)
    assert not part or check_key(f"{part}/{part}")
