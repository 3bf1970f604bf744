"""The time that computing takes on this machine, measured while it works."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

WEIGHT = 0.2  # of the newest measurement
FIRST_TOKEN_SECONDS = 0.005  # until something has been measured
ANSWER_TOKENS = 100  # of a typical answer


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


class Costs:
    """Seconds to prefill a token and to make a decode step. Owned by the batcher."""

    def __init__(self, copy_seconds: float) -> None:
        """`copy_seconds`: an estimate, to copy one slot's whole cache to another."""
        self._copy_seconds = copy_seconds
        self._prefill = Average()
        self._decode: dict[int, Average] = {}  # by the number of tokens

    @property
    def token_seconds(self) -> float:
        """To prefill one token."""
        return FIRST_TOKEN_SECONDS if self._prefill.value is None else self._prefill.value

    def decode_seconds(self, tokens: int) -> float | None:
        """For a decode step of so many tokens, or of the nearest lower number measured, or else of the lowest."""
        fewer = max((known for known in self._decode if known <= tokens), default=min(self._decode, default=None))
        return None if fewer is None else self._decode[fewer].value

    @property
    def worth_copying(self) -> int:
        """The least number of tokens that take longer to compute than a slot's cache to copy; at least one."""
        return int(self._copy_seconds / self.token_seconds) + 1

    @property
    def split_tokens(self) -> int:
        """The tokens that could be prefilled in the time that an answer loses when each step is one more graph.

        Another graph takes about as long as the step of a lone sequence.
        """
        return int(ANSWER_TOKENS * (self.decode_seconds(1) or 0.0) / self.token_seconds)

    @contextmanager
    def call(self, decoded: int, read: int) -> Iterator[None]:
        """Measure a call of `decoded` tokens of streams and `read` tokens of prompts.

        A prompt's share is what exceeds a step of the streams alone. Before such a step is measured, all tokens are
        assumed to cost the same.
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
