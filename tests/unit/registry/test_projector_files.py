"""Which projector a model is given."""

from pathlib import Path

import pytest

from registry.models.gguf_header import read_header
from registry.models.model_facts import facts_of
from registry.models.projector_files import ProjectorFile, projector_for, projectors_in
from tests.support.models.gguf_files import write_gguf
from tests.support.models.tiny_llama import write_tiny_llama
from tests.support.models.tiny_projector import PLANES, write_tiny_projector

WIDTH = 32  # of the model's embeddings


def chosen(model: Path) -> str | None:
    projector = projector_for(model, facts_of([read_header(model)]), projectors_in(model.parent))
    return projector.path.name if projector else None


@pytest.mark.parametrize("kind", ["janus_pro", "gemma3"])
def test_a_projector_with_the_models_embedding_width_is_chosen(tmp_path: Path, kind: str) -> None:
    model = write_gguf(tmp_path / "Tiny-Q4_1.gguf")
    write_tiny_projector(tmp_path / "mmproj-F16.gguf", WIDTH * 3, kind=kind)
    assert chosen(model) is None
    write_tiny_projector(tmp_path / "mmproj-Q8_0.gguf", WIDTH, kind=kind)
    assert chosen(model) == "mmproj-Q8_0.gguf"


def test_a_projector_named_like_the_model_is_preferred_then_the_best_type(tmp_path: Path) -> None:
    facts = facts_of([read_header(write_gguf(tmp_path / "a.gguf"))])
    names = ["mmproj-big-F16.gguf", "mmproj-small-BF16.gguf", "mmproj-small-F16.gguf", "mmproj-small-F32.gguf"]
    projectors = [ProjectorFile(Path(name), 1, frozenset([WIDTH])) for name in names]
    for model, expected in (("small-F32.gguf", 2), ("Big-Q4_1.gguf", 0), ("other.gguf", 0)):
        taken = projector_for(Path(model), facts, projectors)
        assert taken
        assert taken.path.name == names[expected]


def test_an_incomplete_projector_is_not_chosen(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "Tiny-Q4_1.gguf")
    path = write_tiny_projector(tmp_path / "mmproj-F16.gguf", WIDTH)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert chosen(model) is None
    path.write_bytes(whole)
    assert chosen(model) == path.name
    path.unlink()
    path.mkdir()
    assert chosen(model) is None


@pytest.mark.parametrize(("kind", "architecture"), PLANES.items())
def test_a_model_with_two_dimensional_image_positions_gets_a_projector_too(
    tmp_path: Path, kind: str, architecture: str
) -> None:
    model = write_tiny_llama(tmp_path / "Tiny.gguf", architecture=architecture)
    write_tiny_projector(tmp_path / "mmproj-F16.gguf", WIDTH * 3, kind=kind)
    assert chosen(model) is None
    write_tiny_projector(tmp_path / "mmproj-BF16.gguf", WIDTH, kind=kind)
    assert chosen(model) == "mmproj-BF16.gguf"


def test_a_projector_for_audio_only_is_not_chosen(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "Tiny-Q4_1.gguf")
    extra = {"clip.has_audio_encoder": True, "clip.audio.projection_dim": WIDTH}
    write_gguf(tmp_path / "mmproj-F16.gguf", architecture="clip", extra=extra)
    assert chosen(model) is None
