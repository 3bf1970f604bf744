"""Worker processes of this machine: identified beyond their pid, waited for, signalled; and their log files."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Collection
from pathlib import Path

from atelier.hardware import bind
from atelier.launch import start_time
from atelier.log_file import set_aside_if_larger, tail
from registry.instances.instance_record import file_name

POLL_SECONDS = 0.2  # where the kernel has no pidfd
LARGEST_LOG = 10 * 2**20  # bytes; a larger file is set aside at the next launch
TAIL_LINES = 5
LONGEST_TAIL = 600  # characters


class LocalWorker:
    """A worker process: our child, or one that an earlier registry launched."""

    def __init__(
        self, pid: int, started: str, log: Path, log_start: int = 0, child: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        """`started`: the process's start time, as a pid alone may be reused. `log_start`: its first byte in the log."""
        self.pid = pid
        self.started = started
        self._log = log
        self._log_start = log_start
        self._child = child
        self._pidfd = _open_pidfd(pid)

    async def wait(self) -> int | None:
        """Return when it has ended: its exit code, or minus the signal; None where only a parent knows."""
        if self._pidfd is None:
            while self._is_running():  # noqa: ASYNC110 - the kernel has no event for it
                await asyncio.sleep(POLL_SECONDS)
        else:
            await _readable(self._pidfd)
        return self._child.wait() if self._child else None

    def signal(self, number: signal.Signals) -> None:
        """Send the signal, if the process still exists."""
        try:
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            elif self._is_running():
                os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def bind(self, cores: Collection[int]) -> bool:
        """Bind the process to these cores; False if it has ended or the system cannot."""
        return self._is_running() and bind(self.pid, cores)

    def log_tail(self) -> str:
        return last_lines(self._log, self._log_start)

    def release(self) -> None:
        """Close the handle on the process, which keeps running if it has not ended."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _is_running(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return start_time(self.pid) == self.started


def log_path(logs_dir: Path, instance_id: str) -> Path:
    """One file for each instance id."""
    return logs_dir / f"{file_name(instance_id)}.log"


def open_log(path: Path) -> int:
    """A descriptor that appends to the log; a large log is set aside first."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    set_aside_if_larger(path, LARGEST_LOG)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def last_lines(path: Path, since: int = 0) -> str:
    """The last lines written after byte `since`; empty when there are none."""
    return "\n".join(tail(path, since)[-TAIL_LINES:])[-LONGEST_TAIL:]


def _open_pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, or a sandbox that forbids it
        return None


async def _readable(descriptor: int) -> None:
    """A pidfd becomes readable when its process ends."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    duplicate = os.dup(descriptor)  # several may wait, and a loop has one reader for each descriptor
    loop.add_reader(duplicate, _set, ended)
    try:
        await ended
    finally:
        loop.remove_reader(duplicate)
        os.close(duplicate)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
