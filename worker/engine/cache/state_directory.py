"""The directory that saved states lie in, and the two threads that write and read it beside the engine's."""

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

MOST_WAITING = 256 * 2**20  # bytes that wait to be written; a lone state may be larger
FORGET_SECONDS = 5.0  # after which nobody asks any more for what was read

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that an earlier worker left."""

    path: Path
    pieces: list[Piece]
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Read:
    state: State
    seconds: float


@dataclass(slots=True)
class _Reading:
    future: Future[Read]
    asked: float


class StateDirectory:
    """Owns the directory. Used on the engine's thread alone; its own threads touch nothing but files.

    One thread writes and deletes, in the order in which it was asked to, so that what has to go is gone
    before what needs its room comes.
    """

    def __init__(self, directory: Path, identity: bytes) -> None:
        """OSError when the directory cannot be used, or another worker uses it."""
        make_private(directory.parent)
        self._directory = make_private(directory)
        self._lock = _lock(directory / "lock")
        self._identity = identity
        self._paths: dict[int, Path] = {}
        self._writes: dict[int, tuple[int, Future[None]]] = {}  # bytes, and what became of it
        self._reads: dict[int, _Reading] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="cache-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="cache-reader")
        self._complained = False

    def stored(self) -> list[Stored]:
        """What earlier workers left, the least recently used first; what cannot be used is deleted."""
        for path in self._directory.glob(f"*{UNFINISHED}"):
            self.discard(path)
        files = sorted(self._directory.glob(f"*{SUFFIX}"), key=lambda path: path.lstat().st_mtime_ns)
        return [stored for path in files if (stored := self._inspect(path))]

    def _inspect(self, path: Path) -> Stored | None:
        try:
            return Stored(path, read_pieces(path, self._identity), path.lstat().st_size)
        except (OSError, UnusableFile):
            self.discard(path)
            return None

    def adopt(self, state: int, path: Path) -> None:
        """The state's file is there."""
        self._paths[state] = path

    def write(self, state: int, pieces: Sequence[Piece], content: State) -> bool:
        """Write the state some time soon; False when too much waits already."""
        size = file_size(pieces, content.size)
        if self._writes and sum(waiting for waiting, _ in self._writes.values()) + size > MOST_WAITING:
            return False
        path = self._paths[state] = self._directory / f"{_digest(pieces)}{SUFFIX}"
        future = self._writer.submit(write_state, path, self._identity, pieces, content)
        self._writes[state] = (size, future)
        return True

    def written(self) -> list[tuple[int, bool]]:
        """Writes that have ended since, and whether the state is on the disk now."""
        ended = {state: future for state, (_, future) in self._writes.items() if future.done()}
        for state in ended:
            del self._writes[state]
        return [(state, self._succeeded(future)) for state, future in ended.items()]

    def _succeeded(self, future: "Future[None]") -> bool:
        error = future.exception()
        if error is not None and not self._complained:
            self._complained = True  # a disk that is full stays so: once is enough
            _log.warning("cache_write_failed", directory=str(self._directory), reason=str(error))
        return error is None

    def read(self, state: int, pieces: Sequence[Piece], patience: float) -> Read | None:
        """The state, or None while it is still being read: ask again. UnusableFile when it is lost.

        `patience`: seconds that the caller would rather wait than ask again.
        """
        self._forget_abandoned()
        if (reading := self._reads.get(state)) is None:
            future = self._reader.submit(_read, self._paths[state], self._identity, pieces)
            reading = self._reads[state] = _Reading(future, 0.0)
        reading.asked = time.monotonic()
        if not concurrent.futures.wait([reading.future], patience).done:
            return None
        del self._reads[state]
        try:
            return reading.future.result()
        except (OSError, MemoryError) as error:
            raise UnusableFile(str(error)) from error

    def _forget_abandoned(self) -> None:
        """What was read for a call that was cancelled would be kept for ever."""
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
        """Delete a file, after all that is to be written before."""
        self._writer.submit(path.unlink, missing_ok=True)

    def wait(self, deadline: float) -> None:
        """Return when all that was to be written or deleted has been, or at the deadline."""
        nothing = self._writer.submit(lambda: None)  # the only thread comes to it last
        concurrent.futures.wait([nothing], max(0.0, deadline - time.monotonic()))

    def close(self, states: Sequence[int] = ()) -> None:
        """Write nothing more. What is being written may be finished; what is unfinished is no file.

        What had to go still goes: a process ends only after its threads.

        `states`: the one unused for longest first. The next worker is told so by their files' times.
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


def _read(path: Path, identity: bytes, pieces: Sequence[Piece]) -> Read:
    started = time.perf_counter()
    state = read_state(path, identity, pieces)
    os.utime(path)  # the next worker keeps what was used last
    return Read(state, time.perf_counter() - started)


def _lock(path: Path) -> int:
    """Held until closed; the kernel frees it when the process ends. BlockingIOError when another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _digest(pieces: Sequence[Piece]) -> str:
    return hashlib.blake2b(encode_pieces(pieces), digest_size=16).hexdigest()
