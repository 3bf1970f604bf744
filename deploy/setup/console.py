"""What set-up shows: one line per phase, which moves on a terminal and stays still in a log."""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

_GREEN, _RED, _DIM, _PLAIN = "\033[32m", "\033[31m", "\033[2m", "\033[0m"
_ERASE_LINE = "\r\033[K"


class Phase:
    """One phase while it runs."""

    def __init__(self, console: "Console", label: str) -> None:
        self.label = label
        self._console = console
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def show(self, detail: str) -> None:
        self._console.move(f"  {self.label}  {detail}")

    def announce(self, text: str) -> None:
        self._console.say(f"    {text}")

    def note(self, text: str) -> None:
        """For a log, where nothing moves: said once, and never on a terminal."""
        if not self._console.moves:
            self.announce(text)


class Console:
    def __init__(self, stream: TextIO, env: Mapping[str, str]) -> None:
        self._stream = stream
        self.moves = stream.isatty() and env.get("TERM") != "dumb"
        self._coloured = self.moves and not env.get("NO_COLOR")

    @contextmanager
    def phase(self, label: str) -> Iterator[Phase]:
        phase = Phase(self, label)
        phase.show("")
        try:
            yield phase
        except BaseException:
            self.say(f"{self._in(_RED, '✗')} {label}  {self._in(_DIM, clock(phase.elapsed))}")
            raise
        self.done(f"{label}  {self._in(_DIM, clock(phase.elapsed))}")

    def done(self, text: str) -> None:
        self.say(f"{self._in(_GREEN, '✓')} {text}")

    def say(self, text: str) -> None:
        self._write((_ERASE_LINE if self.moves else "") + text + "\n")

    def move(self, text: str) -> None:
        if self.moves:
            # A line that wraps could not be erased again.
            columns = shutil.get_terminal_size().columns
            self._write(_ERASE_LINE + text[: columns - 1])

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._coloured else text

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def clock(seconds: float) -> str:
    """`9 s` under a minute, then `3:25`."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02}"
