"""The directory of saved states, and the two threads that write and read its files."""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import structlog

from atelier.config import make_private
from worker.engine.cache.prefix_tree import Piece
from worker.engine.cache.state_file import (
    SUFFIX,
    UNFINISHED,
    State,
    UnusableFile,
    encode_pieces,
    file_size,
    read_pieces,
    read_state,
    write_state,
)

MOST_WAITING = 256 * 2**20  # bytes waiting to be written; a single state may be larger
FORGET_SECONDS = 5.0  # after which a state that was read is no longer needed

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredState:
    """A file that an earlier worker left."""

    path: Path
    pieces: list[Piece]
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class ReadState:
    state: State
    seconds: float


@dataclass(slots=True)
class _Reading:
    future: Future[ReadState]
    asked: float


class StateDirectory:
    """Owns the directory. Used on the engine's thread alone; its own threads touch nothing but files.

    One thread writes and deletes in the order of the calls, so that files are deleted before others need their space.
    """

    def __init__(self, directory: Path, identity: bytes) -> None:
        """Raises OSError when the directory cannot be used, or another worker uses it."""
        make_private(directory.parent)
        self._directory = make_private(directory)
        self._lock = _lock(directory / "lock")
        self._identity = identity
        self._paths: dict[int, Path] = {}
        self._writes: dict[int, tuple[int, Future[None]]] = {}  # bytes, and the result
        self._reads: dict[int, _Reading] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="cache-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="cache-reader")
        self._complained = False

    def stored(self) -> list[StoredState]:
        """The states that earlier workers left, the least recently used first. Unusable files are deleted."""
        for path in self._directory.glob(f"*{UNFINISHED}"):
            self.discard(path)
        files = sorted(self._directory.glob(f"*{SUFFIX}"), key=lambda path: path.lstat().st_mtime_ns)
        return [stored for path in files if (stored := self._inspect(path))]

    def _inspect(self, path: Path) -> StoredState | None:
        try:
            return StoredState(path, read_pieces(path, self._identity), path.lstat().st_size)
        except (OSError, UnusableFile):
            self.discard(path)
            return None

    def adopt(self, state: int, path: Path) -> None:
        """The state is in this file."""
        self._paths[state] = path

    def write(self, state: int, pieces: Sequence[Piece], content: State) -> bool:
        """Write the state soon; False when too many bytes wait already."""
        size = file_size(pieces, content.size)
        if self._writes and sum(waiting for waiting, _ in self._writes.values()) + size > MOST_WAITING:
            return False
        path = self._paths[state] = self._directory / f"{_digest(pieces)}{SUFFIX}"
        future = self._writer.submit(write_state, path, self._identity, pieces, content)
        self._writes[state] = (size, future)
        return True

    def written(self) -> list[tuple[int, bool]]:
        """The states whose write has ended since the last call, and whether it succeeded."""
        ended = {state: future for state, (_, future) in self._writes.items() if future.done()}
        for state in ended:
            del self._writes[state]
        return [(state, self._succeeded(future)) for state, future in ended.items()]

    def _succeeded(self, future: "Future[None]") -> bool:
        error = future.exception()
        if error is not None and not self._complained:
            self._complained = True  # a full disk stays full: one warning is enough
            _log.warning("cache_write_failed", directory=str(self._directory), reason=str(error))
        return error is None

    def read(self, state: int, pieces: Sequence[Piece], wait: float) -> ReadState | None:
        """The state, or None while it is still being read: call again. Raises UnusableFile when it is lost.

        `wait`: seconds to wait for it.
        """
        self._forget_abandoned()
        if (reading := self._reads.get(state)) is None:
            future = self._reader.submit(_read, self._paths[state], self._identity, pieces)
            reading = self._reads[state] = _Reading(future, 0.0)
        reading.asked = time.monotonic()
        if not concurrent.futures.wait([reading.future], wait).done:
            return None
        del self._reads[state]
        try:
            return reading.future.result()
        except (OSError, MemoryError) as error:
            raise UnusableFile(str(error)) from error

    def _forget_abandoned(self) -> None:
        """Otherwise states that were read for cancelled calls would be kept for ever."""
        since = time.monotonic() - FORGET_SECONDS
        for state in [state for state, reading in self._reads.items() if reading.asked < since]:
            del self._reads[state]

    def delete(self, state: int) -> None:
        if (path := self._paths.pop(state, None)) is None:
            return
        _, future = self._writes.pop(state, (0, None))
        if future is None or not future.cancel():
            self.discard(path)

    def discard(self, path: Path) -> None:
        """Delete a file, after the writes before."""
        self._writer.submit(path.unlink, missing_ok=True)

    def wait(self, deadline: float) -> None:
        """Return when all pending writes and deletions are done, or at the deadline."""
        nothing = self._writer.submit(lambda: None)  # the single thread runs it last
        concurrent.futures.wait([nothing], max(0.0, deadline - time.monotonic()))

    def close(self, states: Sequence[int] = ()) -> None:
        """Write nothing more. A write in progress may end; an unfinished one leaves no file.

        Pending deletions still happen: a process ends only after its threads.

        `states`: the least recently used first. Their files' times pass this order to the next worker.
        """
        now = time.time_ns()
        for number, state in enumerate(states):
            with contextlib.suppress(OSError):
                os.utime(self._paths[state], ns=(now, now + number))
        for _, future in self._writes.values():
            future.cancel()
        self._writer.shutdown(wait=False)
        self._reader.shutdown(wait=False, cancel_futures=True)
        os.close(self._lock)


def _read(path: Path, identity: bytes, pieces: Sequence[Piece]) -> ReadState:
    started = time.perf_counter()
    state = read_state(path, identity, pieces)
    os.utime(path)  # the next worker keeps the most recently used states
    return ReadState(state, time.perf_counter() - started)


def _lock(path: Path) -> int:
    """Held until closed; the kernel frees it when the process ends. Raises BlockingIOError when another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _digest(pieces: Sequence[Piece]) -> str:
    return hashlib.blake2b(encode_pieces(pieces), digest_size=16).hexdigest()
