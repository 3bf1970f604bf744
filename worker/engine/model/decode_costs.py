"""What computing costs on this machine, as measured while it works."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

WEIGHT = 0.2  # of the newest measurement
FIRST_TOKEN_SECONDS = 0.005  # until something has been measured
ANSWER_TOKENS = 100  # of a usual answer


class Average:
    """An exponential moving average; None until the first value."""

    def __init__(self) -> None:
        self.value: float | None = None

    def add(self, value: float) -> None:
        self.value = value if self.value is None else self.value + WEIGHT * (value - self.value)


class Speed:
    """Of moving bytes: a guess that measurements correct, so that a single bad one does not end the moving."""

    def __init__(self, guess: float) -> None:
        """`guess`: bytes/s."""
        self._byte_seconds = Average()
        self._byte_seconds.add(1 / guess)

    def seconds(self, size: int) -> float:
        """That so many bytes take."""
        assert self._byte_seconds.value is not None
        return size * self._byte_seconds.value

    def add(self, size: int, seconds: float) -> None:
        self._byte_seconds.add(seconds / size)

    @contextmanager
    def measure(self, size: int) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.add(size, time.perf_counter() - started)


class Costs:
    """Seconds of a prompt's token and of a decode step. Owned by the batcher."""

    def __init__(self, copy_seconds: float) -> None:
        """`copy_seconds`: estimate for copying one slot's cache to another."""
        self._copy_seconds = copy_seconds
        self._prefill = Average()
        self._decode: dict[int, Average] = {}  # by the number of tokens

    @property
    def token_seconds(self) -> float:
        """Of one prompt token."""
        return FIRST_TOKEN_SECONDS if self._prefill.value is None else self._prefill.value

    def decode_seconds(self, tokens: int) -> float | None:
        """Of a decode step of so many tokens, or of the nearest number below that was measured, or of any."""
        fewer = max((known for known in self._decode if known <= tokens), default=min(self._decode, default=None))
        return None if fewer is None else self._decode[fewer].value

    @property
    def worth_copying(self) -> int:
        """Tokens from which on copying a slot's cache is cheaper than computing them; at least one."""
        return int(self._copy_seconds / self.token_seconds) + 1

    @property
    def split_tokens(self) -> int:
        """Tokens that take as long to compute as an answer loses when each of its steps is one graph more.

        One more graph takes about as long as the step of a lone sequence.
        """
        return int(ANSWER_TOKENS * (self.decode_seconds(1) or 0.0) / self.token_seconds)

    @contextmanager
    def call(self, decoded: int, read: int) -> Iterator[None]:
        """Measure a call of so many tokens of streams and so many of prompts.

        Prompts beside streams take what the streams' own steps do not; before one of those was measured, all
        tokens are taken to cost the same.
        """
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        if not read:
            self._add_step(decoded, seconds)
            return
        step = self.decode_seconds(decoded) if decoded else 0.0
        if step is None:
            step = seconds * decoded / (decoded + read)
            self._add_step(decoded, step)
        if seconds > step:
            self._prefill.add((seconds - step) / read)

    def _add_step(self, tokens: int, seconds: float) -> None:
        self._decode.setdefault(tokens, Average()).add(seconds)
