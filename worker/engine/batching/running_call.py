"""The llama_decode call in progress, which ends early once its result is not needed."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from worker.engine.batching.sequence import Ticket


class Interruptible(Protocol):
    """What a call can be ended with, from any thread."""

    def set(self) -> None: ...
    def clear(self) -> None: ...


class RunningCall:
    """Shared by the engine's thread, which computes, and the event loop, which cancels.

    A micro-batch of a large model takes seconds on a CPU: too long to be computed for a client that has left.
    """

    def __init__(self, interrupt: Interruptible) -> None:
        self._interrupt = interrupt
        self._lock = threading.Lock()  # a late interruption must not end the next call
        self._tickets: Sequence[Ticket] = ()
        self._stopped = False

    @contextmanager
    def computing(self, tickets: Sequence[Ticket]) -> Iterator[None]:
        """The block computes for these calls."""
        with self._lock:
            self._tickets = tickets
        self.review()  # one of them may have been cancelled just before
        try:
            yield
        finally:
            with self._lock:
                self._tickets = ()
                if not self._stopped:
                    self._interrupt.clear()

    def review(self) -> None:
        """A call was cancelled or is past a deadline: end the computation if it has no other. From any thread."""
        now = time.monotonic()
        with self._lock:
            if self._tickets and all(each.cancelled or each.missed(now) for each in self._tickets):
                self._interrupt.set()

    def stop(self) -> None:
        """End this computation and all later ones: the model is unloaded. From any thread."""
        with self._lock:
            self._stopped = True
            self._interrupt.set()
