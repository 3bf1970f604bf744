"""Files of saved states: only what was written is read back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.cache.prefix_tree import Piece
from worker.engine.cache.state_file import State, UnusableFile, file_size, read_pieces, read_state, write_state

OWNER, OTHER = b"a" * 32, b"b" * 32
PIECES: list[Piece] = [(1, 2, 3), (4,), (70_000, 6)]
pieces = st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20).map(tuple), min_size=1, max_size=10)


def content(data: bytes) -> State:
    return np.frombuffer(data, np.uint8)


@settings(max_examples=50, deadline=None)
@given(path=pieces, data=st.binary(max_size=500))
def test_a_written_file_is_read_back(tmp_path_factory: pytest.TempPathFactory, path: list[Piece], data: bytes) -> None:
    file = tmp_path_factory.mktemp("state") / "1.kv"
    write_state(file, OWNER, path, content(data))
    assert file.stat().st_size == file_size(path, len(data))
    assert read_pieces(file, OWNER) == path
    assert read_state(file, OWNER, path).tobytes() == data


def test_a_piece_may_record_how_its_tokens_were_computed(tmp_path: Path) -> None:
    marked: Any = [(((0.1, 1.0), 5), 6), (7,)]
    write_state(tmp_path / "1.kv", OWNER, marked, content(b"state"))
    assert read_pieces(tmp_path / "1.kv", OWNER) == marked
    assert read_state(tmp_path / "1.kv", OWNER, marked).tobytes() == b"state"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_state(tmp_path / "1.kv", OWNER, PIECES, content(bytes(range(200))))
    return tmp_path / "1.kv"


def test_only_its_user_can_access_a_file(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600


def test_no_byte_of_a_file_can_change_unnoticed(file: Path) -> None:
    original = file.read_bytes()
    for at in range(len(original)):
        file.write_bytes(original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :])
        with pytest.raises(UnusableFile):
            read_state(file, OWNER, PIECES)


def test_a_truncated_or_extended_file_is_not_used(file: Path) -> None:
    original = file.read_bytes()
    for spoilt in [*(original[:length] for length in range(0, len(original), 7)), original + b"more"]:
        file.write_bytes(spoilt)
        with pytest.raises(UnusableFile):
            read_pieces(file, OWNER)
        with pytest.raises(UnusableFile):
            read_state(file, OWNER, PIECES)


def test_the_file_of_another_model_or_other_settings_is_not_used(file: Path) -> None:
    with pytest.raises(UnusableFile):
        read_pieces(file, OTHER)
    with pytest.raises(UnusableFile):
        read_state(file, OTHER, PIECES)


def test_the_file_of_other_tokens_is_not_used(file: Path) -> None:
    with pytest.raises(UnusableFile):
        read_state(file, OWNER, [*PIECES[:-1], (70_000, 7)])


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "1.kv").mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError, match="1"):
        write_state(tmp_path / "1.kv", OWNER, PIECES, content(b"state"))
    assert [path.name for path in tmp_path.iterdir()] == ["1.kv"]
