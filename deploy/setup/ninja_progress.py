"""How far a build by ninja is, read from the `[done/total]` that begins its lines."""

import re
import time
from collections.abc import Iterable

from deploy.setup.console import Phase, clock

_STEP = re.compile(r"\s*\[(\d+)/(\d+)\] ")


class BuildProgress:
    """Of several builds only the largest counts: Vulkan's shader compiler is one of its own inside llama.cpp's."""

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
        """Seconds, to the nearest five: more would be a pretence, and restless."""
        return 5 * round(elapsed * (self.total - self.done) / self.done / 5)


class BuildDisplay:
    """Shows a build's progress in its phase: a bar on a terminal, a line every tenth in a log."""

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
        told = f"{percent:3} %  {elapsed}{self._left()}"
        self._phase.show(f"{bar(percent)} {told}")
        if percent // 10 > self._noted // 10:
            self._noted = percent
            self._phase.note(told)

    def _left(self) -> str:
        compiling = time.monotonic() - self._compiling_since
        # The first few files say nothing about the rest.
        if self._progress.percent < 3:
            return ""
        if self._progress.percent == 100:
            return ", packing"
        return f", about {clock(self._progress.remaining(compiling))} left"


def bar(percent: int, width: int = 16) -> str:
    filled = percent * width // 100
    return "█" * filled + "░" * (width - filled)
