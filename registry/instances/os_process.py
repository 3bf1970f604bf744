"""Processes of this machine: recognised for certain, waited for, signalled."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Collection

from atelier.hardware import bind
from atelier.launch import start_time

POLL_SECONDS = 0.2  # where the kernel has no pidfd


class LocalProcess:
    """A process of this machine: our child, or one that an earlier registry launched."""

    def __init__(self, pid: int, started: str, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.pid = pid
        self.started = started
        self._child = child
        self._pidfd = _open_pidfd(pid)

    async def wait(self) -> int | None:
        """Return when it has ended: its exit code, or minus the signal; None where only a parent knows."""
        if self._pidfd is None:
            while self._lives():  # noqa: ASYNC110 - the kernel has no event for it
                await asyncio.sleep(POLL_SECONDS)
        else:
            await _readable(self._pidfd)
        return self._child.wait() if self._child else None

    def signal(self, number: signal.Signals) -> None:
        """Send the signal, if the process is still there."""
        try:
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            elif self._lives():
                os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def bind(self, cores: Collection[int]) -> bool:
        """Hold the process to these cores; whether it is still there and the system could."""
        return self._lives() and bind(self.pid, cores)

    def release(self) -> None:
        """Give back what holding on to the process takes; it goes on, if it still runs."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _lives(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return start_time(self.pid) == self.started


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
    duplicate = os.dup(descriptor)  # several may wait, and a loop knows one reader for each descriptor
    loop.add_reader(duplicate, _set, ended)
    try:
        await ended
    finally:
        loop.remove_reader(duplicate)
        os.close(duplicate)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
