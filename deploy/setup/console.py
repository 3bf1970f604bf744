"""What set-up prints: one line per phase, updated in place on a terminal; and the progress of a build by ninja."""

import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
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
        """Print a line in a log; on a terminal, the phase's own line is updated instead."""
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
            # A line that wraps could not be erased.
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


_STEP = re.compile(r"\s*\[(\d+)/(\d+)\] ")


class BuildProgress:
    """Progress from the `[done/total]` at the beginning of ninja's lines.

    Of nested builds only the largest counts: llama.cpp's contains one of Vulkan's shader compiler.
    """

    def __init__(self) -> None:
        self.done = 0
        self.total = 0

    def read(self, lines: Iterable[str]) -> None:
        for step in filter(None, map(_STEP.match, lines)):
            done, total = int(step[1]), int(step[2])
            if total >= self.total and done <= total:
                self.done, self.total = done, total

    @property
    def percent(self) -> int:
        return 100 * self.done // self.total if self.total else 0

    def remaining(self, elapsed: float) -> float:
        """Estimated seconds, rounded to five: the estimate is no more precise."""
        return 5 * round(elapsed * (self.total - self.done) / self.done / 5)


class BuildDisplay:
    """Shows a build's progress in its phase: a bar on a terminal, a line every 10 % in a log."""

    def __init__(self, phase: Phase) -> None:
        self._phase = phase
        self._progress = BuildProgress()
        self._compiling_since = 0.0
        self._noted = 0

    def update(self, lines: list[str]) -> None:
        self._progress.read(lines)
        elapsed = clock(self._phase.elapsed)
        if not self._progress.done:
            self._phase.show(f"downloading and preparing  {elapsed}")
            return
        self._compiling_since = self._compiling_since or time.monotonic()
        percent = self._progress.percent
        text = f"{percent:3} %  {elapsed}{self._left()}"
        self._phase.show(f"{bar(percent)} {text}")
        if percent // 10 > self._noted // 10:
            self._noted = percent
            self._phase.note(text)

    def _left(self) -> str:
        compiling = time.monotonic() - self._compiling_since
        # The first files are no basis for an estimate.
        if self._progress.percent < 3:
            return ""
        if self._progress.percent == 100:
            return ", packing"
        return f", about {clock(self._progress.remaining(compiling))} left"


def bar(percent: int, width: int = 16) -> str:
    filled = percent * width // 100
    return "█" * filled + "░" * (width - filled)
