"""The directory of saved states, with real files and threads."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog.testing

from worker.engine.cache import state_directory as module
from worker.engine.cache.prefix_tree import Piece
from worker.engine.cache.state_directory import StateDirectory
from worker.engine.cache.state_file import State, UnusableFile, file_size, write_state

OWNER, OTHER = b"a" * 32, b"b" * 32
PIECES: list[Piece] = [(1, 2, 3), (4, 5)]
MORE: list[Piece] = [(9,)]
CONTENT: State = np.arange(200, dtype=np.uint8)
PATIENCE = 10.0  # seconds


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "model"


@pytest.fixture
def directory(place: Path) -> Iterator[StateDirectory]:
    opened = StateDirectory(place, OWNER)
    yield opened
    opened.close()


def flush(directory: StateDirectory) -> None:
    directory.wait(time.monotonic() + PATIENCE)


def reopened(directory: StateDirectory, identity: bytes = OWNER) -> StateDirectory:
    """The directory as the next worker opens it, once writes and deletions are done."""
    directory._writer.submit(lambda: None).result(PATIENCE)
    directory.close()
    return StateDirectory(directory._directory, identity)


def files(place: Path) -> list[str]:
    return sorted(path.suffix for path in place.iterdir() if path.name != "lock")


def test_written_states_are_read_back(directory: StateDirectory) -> None:
    assert directory.write(1, PIECES, CONTENT)
    flush(directory)
    assert directory.written() == [(1, True)]
    assert directory.written() == []
    read = directory.read(1, PIECES, PATIENCE)
    assert read is not None
    assert read.state.tobytes() == CONTENT.tobytes()


def test_only_its_user_can_access_the_directory(directory: StateDirectory, place: Path) -> None:
    assert [path.stat().st_mode & 0o777 for path in (place.parent, place)] == [0o700, 0o700]


def test_the_next_worker_finds_the_states_least_recently_used_first(directory: StateDirectory, place: Path) -> None:
    for state, pieces in enumerate([PIECES, MORE]):
        directory.write(state, pieces, CONTENT)
        flush(directory)
    for path in place.glob("*.kv"):
        os.utime(path, (1, 1))
    directory.read(1, MORE, PATIENCE)
    found = reopened(directory).stored()
    assert [(stored.pieces, stored.size) for stored in found] == [
        (PIECES, file_size(PIECES, CONTENT.size)),
        (MORE, file_size(MORE, CONTENT.size)),
    ]


def test_unusable_files_are_deleted_and_foreign_ones_are_kept(directory: StateDirectory, place: Path) -> None:
    write_state(place / "1.kv", OTHER, PIECES, CONTENT)
    (place / "2.kv").write_bytes(b"nonsense")
    (place / "3.part").write_bytes(b"half")
    (place / "notes.txt").write_text("mine")
    assert directory.stored() == []
    reopened(directory)
    assert files(place) == [".txt"]


def test_a_directory_is_used_by_one_worker_at_a_time(directory: StateDirectory, place: Path) -> None:
    with pytest.raises(BlockingIOError):
        StateDirectory(place, OWNER)


def test_a_state_deleted_before_it_is_written_leaves_no_file(directory: StateDirectory, place: Path) -> None:
    for state, pieces in enumerate([PIECES, MORE]):
        directory.write(state, pieces, CONTENT)
    for state in range(2):
        directory.delete(state)
    reopened(directory)
    assert files(place) == []


def test_a_missing_or_corrupt_file_raises_an_error(directory: StateDirectory, place: Path) -> None:
    for state, pieces in enumerate([PIECES, MORE]):
        directory.write(state, pieces, CONTENT)
    flush(directory)
    first, second = place.glob("*.kv")
    first.unlink()
    second.write_bytes(b"")
    for state, pieces in enumerate([PIECES, MORE]):
        with pytest.raises(UnusableFile):
            directory.read(state, pieces, PATIENCE)


def test_a_failing_disk_is_logged_once(directory: StateDirectory, place: Path) -> None:
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    with structlog.testing.capture_logs() as logs:
        for state, pieces in enumerate([PIECES, MORE]):
            assert directory.write(state, pieces, CONTENT)
            flush(directory)
            assert directory.written() == [(state, False)]
    assert [entry["event"] for entry in logs] == ["cache_write_failed"]


def test_the_write_queue_is_limited(directory: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", CONTENT.size)
    assert directory.write(1, PIECES, CONTENT)
    assert not directory.write(2, MORE, CONTENT)
    flush(directory)
    directory.written()
    assert directory.write(2, MORE, CONTENT)


def test_an_abandoned_read_is_dropped(directory: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    for state, pieces in enumerate([PIECES, MORE]):
        directory.write(state, pieces, CONTENT)
    flush(directory)
    directory.read(0, PIECES, 0)
    monkeypatch.setattr(module, "FORGET_SECONDS", -1.0)
    directory.read(1, MORE, PATIENCE)
    assert 0 not in directory._reads
