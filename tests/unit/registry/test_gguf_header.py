"""GGUF files that are inconsistent, truncated, or something else."""

import os
import struct
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.errors import InvalidModelFile
from registry.models.gguf_header import read_header, whole_size
from registry.models.split_files import read_facts
from tests.support.models.gguf_files import write_gguf

TOKENS_OFFSET = 24  # of the first metadata entry: after magic, version and two counts


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", chat_template="{{ messages }}")
    return path.read_bytes()[:-16]  # without the padding after the last tensor


def refused(tmp_path: Path, content: bytes) -> str:
    """The message of the rejection; the file must be rejected."""
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    with pytest.raises(InvalidModelFile) as refusal:
        read_facts(path)
    return refusal.value.message


def test_facts_are_read_from_a_small_model(tmp_path: Path) -> None:
    facts = read_facts(write_gguf(tmp_path / "a.gguf", name="Tiny", context_length=512, chat_template="{{ x }}"))
    assert (facts.title, facts.architecture, facts.quantization) == ("Tiny", "llama", "Q4_1")
    assert (facts.layers, facts.context_length, facts.embedding_length) == (2, 512, 32)
    assert (facts.parameters, facts.bits_per_weight) == (256, 5.0)
    assert facts.chat_template == "{{ x }}"
    assert not facts.embedding
    assert facts.size_bytes == (tmp_path / "a.gguf").stat().st_size


def test_the_header_agrees_with_the_gguf_library(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", extra={"general.sampling.temp": 0.5, "llama.rope.scaling": True})
    ours, theirs = read_header(path), GGUFReader(path)
    scalars = {
        key: field.contents()
        for key, field in theirs.fields.items()
        if not key.startswith("GGUF.") and field.types[0].name != "ARRAY"
    }
    assert dict(ours.metadata) == scalars
    assert ours.tensors == len(theirs.tensors)
    assert ours.tensor_bytes == sum(tensor.n_bytes for tensor in theirs.tensors)


def test_sampling_defaults_within_bounds_are_used_and_others_ignored(tmp_path: Path) -> None:
    extra = {
        "general.sampling.temp": 0.25,
        "general.sampling.top_k": 20,
        "general.sampling.top_p": 7.0,
        "general.sampling.penalty_repeat": float("nan"),
    }
    facts = read_facts(write_gguf(tmp_path / "a.gguf", extra=extra))
    assert facts.sampling_defaults == {"temperature": 0.25, "top_k": 20}


@pytest.mark.parametrize(("architecture", "extra"), [("bert", {}), ("qwen3", {"qwen3.pooling_type": 3})])
def test_embedding_models_are_recognised(tmp_path: Path, architecture: str, extra: dict[str, int]) -> None:
    assert read_facts(write_gguf(tmp_path / "a.gguf", architecture=architecture, extra=extra)).embedding


def test_a_projector_is_not_a_model(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "mmproj.gguf", architecture="clip")
    with pytest.raises(InvalidModelFile, match="projector"):
        read_facts(path)


def test_a_vocabulary_is_not_a_model(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "vocabulary.gguf", tensor_count=0)
    with pytest.raises(InvalidModelFile, match="no tensors"):
        read_facts(path)


def test_every_truncation_is_rejected(tmp_path: Path, model: bytes) -> None:
    for length in range(len(model)):
        assert refused(tmp_path, model[:length])


def test_the_beginning_of_a_file_says_how_long_it_is(tmp_path: Path, model: bytes) -> None:
    at = model.index(b"blk.1.weight")
    path = tmp_path / "beginning.gguf"
    path.write_bytes(model[: at + 200])
    assert len(model) - 32 < whole_size(path) <= len(model)
    path.write_bytes(model[:at])
    with pytest.raises(InvalidModelFile, match="within the header"):
        whole_size(path)


def test_a_truncated_download_is_reported_with_its_missing_bytes(tmp_path: Path, model: bytes) -> None:
    message = refused(tmp_path, model[:-1])
    assert f"{len(model) - 1} of {len(model)} bytes" in message
    assert "Download it again" in message


def test_another_format_is_recognised(tmp_path: Path, model: bytes) -> None:
    assert "not a GGUF file" in refused(tmp_path, b"PK\x03\x04" + model[4:])


@pytest.mark.parametrize("version", [0, 1, 4, 2**31])
def test_unknown_versions_are_rejected(tmp_path: Path, model: bytes, version: int) -> None:
    assert "version" in refused(tmp_path, model[:4] + struct.pack("<I", version) + model[8:])


def test_a_big_endian_file_is_recognised(tmp_path: Path, model: bytes) -> None:
    assert "big-endian" in refused(tmp_path, model[:4] + struct.pack(">I", 3) + model[8:])


@pytest.mark.parametrize("offset", [8, 16])
@pytest.mark.parametrize("count", [2**60, 2**64 - 1, 65_537, 60_000])
def test_false_counts_are_rejected(tmp_path: Path, model: bytes, offset: int, count: int) -> None:
    refused(tmp_path, model[:offset] + struct.pack("<Q", count) + model[offset + 8 :])


@pytest.mark.parametrize("length", [2**60, 2**64 - 1, 2**31])
def test_a_key_with_a_false_length_is_rejected(tmp_path: Path, model: bytes, length: int) -> None:
    refused(tmp_path, model[:TOKENS_OFFSET] + struct.pack("<Q", length) + model[TOKENS_OFFSET + 8 :])


def test_an_array_with_a_false_count_is_rejected(tmp_path: Path, model: bytes) -> None:
    at = model.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 8
    assert struct.unpack_from("<Q", model, at) == (16,)
    for count in (2**60, 2**64 - 1, 17, 10_000):
        refused(tmp_path, model[:at] + struct.pack("<Q", count) + model[at + 8 :])


def test_an_array_of_arrays_is_rejected(tmp_path: Path, model: bytes) -> None:
    at = model.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 4
    assert "array of arrays" in refused(tmp_path, model[:at] + struct.pack("<I", 9) + model[at + 4 :])


def test_a_tensor_beyond_the_end_is_rejected(tmp_path: Path, model: bytes) -> None:
    at = model.index(b"blk.1.weight") + len(b"blk.1.weight") + 4 + 16 + 4
    for offset in (2**40, 2**63, 2**64 - 32):
        assert "truncated" in refused(tmp_path, model[:at] + struct.pack("<Q", offset) + model[at + 8 :])


def test_a_tensor_of_impossible_shape_is_rejected(tmp_path: Path, model: bytes) -> None:
    at = model.index(b"blk.0.weight") + len(b"blk.0.weight") + 4
    for first in (0, 33, 2**62, 2**64 - 1):
        assert "shape" in refused(tmp_path, model[:at] + struct.pack("<Q", first) + model[at + 8 :])


def test_a_tensor_of_unknown_type_is_rejected(tmp_path: Path, model: bytes) -> None:
    at = model.index(b"blk.0.weight") + len(b"blk.0.weight") + 4 + 16
    assert "unknown" in refused(tmp_path, model[:at] + struct.pack("<I", 4711) + model[at + 4 :])


def test_a_repeated_tensor_is_rejected(tmp_path: Path, model: bytes) -> None:
    assert "twice" in refused(tmp_path, model.replace(b"blk.1.weight", b"blk.0.weight"))


@pytest.mark.parametrize("alignment", [0, 3, 2**31])
def test_an_invalid_alignment_is_rejected(tmp_path: Path, alignment: int) -> None:
    path = write_gguf(tmp_path / "a.gguf", extra={"general.alignmen_": alignment})
    assert "alignment" in refused(tmp_path, path.read_bytes().replace(b"general.alignmen_", b"general.alignment"))


def test_a_huge_file_of_empty_strings_is_rejected_quickly_and_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    key = b"tokens"
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, 8, 200_000)
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 1, 40) + entry)
        file.truncate(2**34)
    began = time.perf_counter()
    with pytest.raises(InvalidModelFile):
        read_header(path)
    assert time.perf_counter() - began < 3  # a quiet machine needs a third of a second
    tracemalloc.start()
    with pytest.raises(InvalidModelFile):
        read_header(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.gguf")
    with pytest.raises(InvalidModelFile):
        read_facts(tmp_path / "fifo.gguf")


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    write_gguf(tmp_path / "big-00001-of-00002.gguf")
    with pytest.raises(InvalidModelFile, match="big-00002-of-00002"):
        read_facts(tmp_path / "big-00001-of-00002.gguf")
    write_gguf(tmp_path / "big-00002-of-00002.gguf")
    assert read_facts(tmp_path / "big-00001-of-00002.gguf").parameters == 512


def test_a_later_part_is_not_a_model(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "big-00002-of-00002.gguf")
    with pytest.raises(InvalidModelFile, match="first part"):
        read_facts(path)


@settings(max_examples=300, deadline=2000)
@given(data=st.data())
def test_changed_bytes_are_read_or_rejected_but_never_crash(
    data: st.DataObject, model: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(model)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=9))
        content[at : at + len(piece)] = piece
    path = tmp_path_factory.getbasetemp() / "fuzzed.gguf"
    path.write_bytes(content)
    with suppress(InvalidModelFile):
        assert read_facts(path).parameters > 0


@settings(max_examples=200, deadline=2000)
@given(tail=st.binary(max_size=400))
def test_random_bytes_after_the_magic_are_rejected(tail: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "random.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + tail)
    with pytest.raises(InvalidModelFile):
        read_facts(path)
