"""A program on its own terminal, as a person uses it: keys are its input, the screen's text its output."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

BOUND = 20.0  # seconds
CTRL_C, CTRL_D = "\x03", "\x04"
# Ctrl-C on the terminal is a signal for the program, even if our parent process ignores it. The program sees to that
# itself: between fork and exec gRPC would write to the terminal what its threads in our process think of the fork.
PROGRAM = (
    "import fcntl, signal, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from atelier.cli.main import app; app()"
)
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[=>]")


class Terminal:
    """The program's process, and the other end of its terminal."""

    def __init__(self, process: subprocess.Popen[bytes], side: int) -> None:
        self.process, self._side = process, side
        self.raw = ""

    @property
    def text(self) -> str:
        """All output so far, without colours and cursor movements."""
        return ESCAPE.sub("", self.raw).replace("\r", "")

    def type(self, keys: str) -> None:
        os.write(self._side, keys.encode())

    def wait_for(self, text: str, times: int = 1) -> None:
        """Read until the text has appeared so often."""
        deadline = time.monotonic() + BOUND
        while self.text.count(text) < times:
            if time.monotonic() > deadline or not self._read(deadline):
                raise AssertionError(f"{text!r} never came; the screen was:\n{self.text}")

    def wait_for_prompt(self, times: int = 1) -> None:
        """Read until the prompt has appeared so often and the program sleeps until keys come.

        Python loses a Ctrl-C that comes after the prompt is written and before it sleeps.
        """
        self.wait_for("> ", times)
        program, deadline = psutil.Process(self.process.pid), time.monotonic() + BOUND
        while program.status() != psutil.STATUS_SLEEPING:
            assert time.monotonic() < deadline, f"it never waited for keys; the screen was:\n{self.text}"
            self._read(time.monotonic() + 0.01)

    def ended(self) -> int:
        """The exit code, once the program has ended."""
        deadline = time.monotonic() + BOUND
        while self._read(deadline):
            pass
        return self.process.wait(BOUND)

    def _read(self, deadline: float) -> bool:
        """Whether something more was read before the end or the deadline."""
        ready, _, _ = select.select([self._side], [], [], max(0, deadline - time.monotonic()))
        data = b""
        if ready:
            with contextlib.suppress(OSError):  # the other side is closed
                data = os.read(self._side, 65536)
        self.raw += data.decode(errors="replace")
        return bool(data)


def _without_size(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that would tell the program another size than its terminal's."""
    return {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}


@contextmanager
def terminal(*arguments: str, environment: Mapping[str, str], width: int = 80) -> Iterator[Terminal]:
    """The command with these arguments on a new terminal; killed at the end if need be."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**_without_size(os.environ), "TERM": "xterm-256color", **environment},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(BOUND)
        os.close(ours)
