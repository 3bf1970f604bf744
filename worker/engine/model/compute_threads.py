"""How many threads compute.

The registry moves a worker between cores as others come to work and go. Threads that share a core wait for
one another at every operation of every layer, so there is one thread for each physical core; unless the order
in which numbers are added up depends on it, and with that the text.
"""

from atelier.hardware import available_cores, physical_cores
from atelier.launch import LaunchSpec
from worker.engine.model.batch_invariance import Exactness


class Threads:
    """A fixed number, or as many as there are physical cores that this thread may use at the moment."""

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._cores: frozenset[int] = frozenset()
        self._count = 1

    @property
    def count(self) -> int:
        if self._fixed is not None:
            return self._fixed
        if (cores := available_cores()) != self._cores:
            self._cores, self._count = cores, len(physical_cores(cores))
        return self._count


def decode_threads(spec: LaunchSpec, exact: Exactness) -> Threads:
    """For completing prompts. With one path through attention, and one kernel, any number gives the same text."""
    return Threads(spec.load.threads) if exact.decode else fixed_threads(spec)


def fixed_threads(spec: LaunchSpec) -> Threads:
    """Where the number must not change: as many as the worker may have when it works alone."""
    return Threads(spec.load.threads or spec.threads or Threads().count)
