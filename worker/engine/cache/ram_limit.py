"""How much host memory the saved states of an instance may take."""

import time
from collections.abc import Callable

from atelier.machine_memory import CACHE_SHARE, cache_share, machine_memory

HOLD_SECONDS = 60.0  # a model that is being loaded takes its memory within this time, which counts as free until then


def free_memory() -> int:
    """Bytes of this machine's memory that are available."""
    return machine_memory().available


class RamLimit:
    """A fixed limit, or one that makes way: it falls with the free memory, and when another model needs it."""

    def __init__(self, size: int | None, *, makes_way: bool, free: Callable[[], int] = free_memory) -> None:
        """`size`: bytes; None: a share of what is free now. Of a limit that makes way it is the most."""
        self.most = cache_share(free()) if size is None else size
        self._makes_way = makes_way
        self._free = free
        self._lowered = self.most
        self._lowered_until = 0.0

    def now(self, used: int) -> int:
        """Bytes that may be taken, of which `used` are taken already."""
        if not self._makes_way:
            return self.most
        lowered = self._lowered if time.monotonic() < self._lowered_until else self.most
        return min(lowered, (used + self._free()) // CACHE_SHARE)

    def make_way(self, used: int, size: int) -> int:
        """Give up `size` of the `used` bytes for a while; returns what is left. A fixed limit gives up nothing."""
        if not self._makes_way:
            return used
        self._lowered, self._lowered_until = max(0, used - size), time.monotonic() + HOLD_SECONDS
        return self._lowered
