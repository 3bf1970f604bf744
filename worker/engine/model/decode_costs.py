"""The time that computing takes on this machine: measured when a model is loaded, and while it works."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

WEIGHT = 0.2  # of the newest measurement
FIRST_TOKEN_SECONDS = 0.005  # until something has been measured
ANSWER_TOKENS = 100  # of a typical answer
SLOWEST = 2.0  # times the expected duration: what exceeds it is a pause of the machine, not the cost of a call
WARM_ROWS = (1, 16, 64, 256)
WARM_SECONDS = 0.3  # of measurements at load
LEAST_ROWS = 16  # of a call that reads all weights for a part of a prompt: fewer hardly cost less
WIDE_ROWS = 64  # of a slice that llama.cpp's attention on a CPU reads the keys for once, not once for each row
WIDE_GAIN = 1.5  # times the tokens/s: then a wide slice is worth a longer pause
SHALLOW = 512  # tokens in the cache, up to which they hardly matter to the cost of a row
SLICE_ROWS = (*range(LEAST_ROWS, 64, 16), *range(64, 256, 32), *range(256, 1024, 64), *range(1024, 65_537, 512))


class Average:
    """An exponential moving average; None until the first value."""

    def __init__(self) -> None:
        self.value: float | None = None

    def add(self, value: float) -> None:
        self.value = value if self.value is None else self.value + WEIGHT * (value - self.value)


class Speed:
    """Seconds to move bytes: starts from an estimate, so that one slow measurement does not end all moves."""

    def __init__(self, guess: float) -> None:
        """`guess`: the estimate, in bytes/s."""
        self._byte_seconds = Average()
        self._byte_seconds.add(1 / guess)

    def seconds(self, size: int) -> float:
        """To move so many bytes."""
        assert self._byte_seconds.value is not None
        return size * self._byte_seconds.value

    def add(self, size: int, seconds: float) -> None:
        self._byte_seconds.add(seconds / size)

    @contextmanager
    def measure(self, size: int) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.add(size, time.perf_counter() - started)


class RowCurve:
    """Seconds of a call by its number of rows.

    It is no line through zero: a call reads all weights, and kernels are made for several rows at once. So it is
    measured at some numbers of rows and linear between them. A call never takes longer than one of more rows: a
    number of rows that was measured while the machine was busy does not stay expensive.
    """

    def __init__(self) -> None:
        self._measured: dict[int, float] = {}
        self._rows: list[int] = []
        self._seconds: list[float] = []

    @property
    def known(self) -> Sequence[int]:
        """The numbers of rows that have been measured."""
        return self._rows

    def add(self, rows: int, seconds: float) -> None:
        """A call of so many rows took so long."""
        point = _point(rows)
        seconds *= point / rows
        if self._measured:
            seconds = min(seconds, SLOWEST * self.seconds(point))
        before = self._measured.get(point, seconds)
        self._measured[point] = before + WEIGHT * (seconds - before)
        self._rows = sorted(self._measured)
        self._seconds = [self._measured[each] for each in self._rows]
        for at in range(len(self._rows) - 2, -1, -1):
            self._seconds[at] = min(self._seconds[at], self._seconds[at + 1])

    def seconds(self, rows: int) -> float:
        """Of a call of so many rows; something must have been measured. More rows than those cost the same each."""
        at = bisect_left(self._rows, rows)
        if at == 0:
            return self._seconds[0]
        left, left_seconds = self._rows[at - 1], self._seconds[at - 1]
        if at == len(self._rows):
            return left_seconds * rows / left
        right, right_seconds = self._rows[at], self._seconds[at]
        return left_seconds + (right_seconds - left_seconds) * (rows - left) / (right - left)

    @property
    def row_seconds(self) -> float:
        """Of a row where it is cheapest."""
        return min(seconds / rows for rows, seconds in zip(self._rows, self._seconds, strict=True))


class DepthCurves:
    """A curve for each power of two of tokens that are in the cache before a call: its rows attend to them."""

    def __init__(self) -> None:
        self._curves: dict[int, RowCurve] = {}

    def add(self, rows: int, seconds: float, depth: int) -> None:
        self._curves.setdefault(_level(depth), RowCurve()).add(rows, seconds)

    def at(self, depth: int) -> RowCurve | None:
        """The curve of this depth, or of the nearest one that something was measured at."""
        level = _level(depth)
        nearest = min(self._curves, key=lambda other: abs(other - level), default=None)
        return None if nearest is None else self._curves[nearest]

    def measured(self, rows: int, depth: int) -> bool:
        """Whether a call of so many rows, or of more, was measured at this depth."""
        curve = self._curves.get(_level(depth))
        return curve is not None and curve.known[-1] >= rows


class Costs:
    """Seconds of calls for prompts and of decode steps, by their rows. Owned by the batcher."""

    def __init__(self, copy_seconds: float) -> None:
        """`copy_seconds`: an estimate, to copy one slot's whole cache to another."""
        self._copy_seconds = copy_seconds
        self._prompt = DepthCurves()
        self._decode = RowCurve()

    def warm(self, compute: Callable[[int], None], most: int) -> None:
        """Measure calls of 1 row and more, up to `most`, as far as a short time allows."""
        left = WARM_SECONDS
        for rows in WARM_ROWS:
            if rows > most or ((curve := self._prompt.at(0)) and curve.seconds(rows) > left):
                return
            started = time.perf_counter()
            with self.call(0, rows):
                compute(rows)
            left -= time.perf_counter() - started

    @property
    def token_seconds(self) -> float:
        """To prefill one token, in calls of a good size."""
        curve = self._prompt.at(0)
        return curve.row_seconds if curve else FIRST_TOKEN_SECONDS

    def prompt_seconds(self, rows: int, depth: int = 0) -> float:
        """Of a call that computes so many tokens of prompts, after `depth` tokens."""
        curve = self._prompt.at(depth)
        return curve.seconds(rows) if curve else rows * FIRST_TOKEN_SECONDS

    def prompt_rows(self, seconds: float, most: int, depth: int = 0) -> int:
        """The most tokens of prompts that a call computes in this time, but not so few that each costs much more.

        At most `most`; after `depth` tokens. The numbers are multiples of what kernels compute at once.
        """
        if self.prompt_seconds(LEAST_ROWS, depth) > seconds:
            return min(WIDE_ROWS if self._worth_widening(depth) else LEAST_ROWS, most)
        fitting = LEAST_ROWS
        for rows in SLICE_ROWS:
            if rows > most or self.prompt_seconds(rows, depth) > seconds:
                break
            fitting = rows
        return min(fitting, most)

    def _worth_widening(self, depth: int) -> bool:
        """Whether a wide slice is so much faster that a longer pause, where one is too long anyway, is soon over.

        Deep in a text that is tried once.
        """
        if not self._prompt.measured(WIDE_ROWS, depth):
            return depth >= SHALLOW
        gain = self.prompt_seconds(LEAST_ROWS, depth) / LEAST_ROWS * WIDE_ROWS / self.prompt_seconds(WIDE_ROWS, depth)
        return gain >= WIDE_GAIN

    def decode_seconds(self, tokens: int) -> float | None:
        """For a decode step of so many tokens; None before the first one."""
        if not self._decode.known:
            return None
        most = self._decode.known[-1]
        if tokens <= most or self._prompt.at(0) is None:
            return self._decode.seconds(tokens)
        return self._decode.seconds(most) + self.prompt_seconds(tokens) - self.prompt_seconds(most)

    @property
    def worth_copying(self) -> int:
        """The least number of tokens that take longer to compute than a slot's cache to copy; at least one."""
        return int(self._copy_seconds / self.token_seconds) + 1

    @property
    def worth_waiting(self) -> int:
        """The same of tokens that are computed in a call of their own before, at the price of a small one."""
        return self.worth_copying + LEAST_ROWS

    @property
    def split_tokens(self) -> int:
        """The tokens that could be prefilled in the time that an answer loses when each step is one more graph.

        Another graph takes about as long as the step of a lone sequence.
        """
        return int(ANSWER_TOKENS * (self.decode_seconds(1) or 0.0) / self.token_seconds)

    @contextmanager
    def call(self, decoded: int, read: int, depth: int = 0) -> Iterator[None]:
        """Measure a call of `decoded` tokens of streams, or of `read` tokens of prompts; not one of both.

        `depth`: the tokens that are in the cache before those of the prompts.
        """
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        if not read:
            self._decode.add(decoded, seconds)
        elif not decoded:
            self._prompt.add(read, seconds, depth)


def _level(depth: int) -> int:
    """0 up to SHALLOW, and one more for each doubling."""
    return (depth // SHALLOW).bit_length()


def _point(rows: int) -> int:
    """Where on the curve a number of rows counts: close together where the cost of a row changes much."""
    step = 1 if rows <= 16 else 8 if rows <= 64 else 64
    return max(step, round(rows / step) * step)
