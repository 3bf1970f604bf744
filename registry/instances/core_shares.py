"""Which cores each instance in main memory computes on: disjoint ones, as many as there are for those at work.

Two models that compute on the same cores wait for one another's threads at every step, and together make half
of the tokens that they make on cores of their own. A worker has one thread for each core that it is bound to,
where the number of threads does not change the text.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from atelier.hardware import physical_cores
from registry.devices.compute_device import CPU
from registry.instances.instance_supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Claim:
    """An instance that computes on the CPU."""

    id: str
    busy: bool


def share(physical: Sequence[Sequence[int]], claims: Sequence[Claim]) -> dict[str, list[int]]:
    """The cores of each, by id. `physical`: the cores that there are, by physical core.

    Those at work divide all of it, the first of them taking what cannot be divided:

        4 cores; a and b work, c is idle  -->  a: 0-1, b: 2-3, c: 3 (its own part, when all work)

    Of more instances than cores, several have one together.
    """
    busy = [claim.id for claim in claims if claim.busy]
    return _divide(physical, [claim.id for claim in claims]) | _divide(physical, busy)


def _divide(physical: Sequence[Sequence[int]], ids: Sequence[str]) -> dict[str, list[int]]:
    if len(ids) > len(physical):
        return {id: list(physical[number % len(physical)]) for number, id in enumerate(ids)}
    parts, first = {}, 0
    for number, id in enumerate(ids):
        count = len(physical) // len(ids) + (number < len(physical) % len(ids))
        parts[id] = list(chain.from_iterable(physical[first : first + count]))
        first += count
    return parts


class CoreShares:
    """Binds workers to their cores, anew whenever one begins or ends to work. The pool's."""

    def __init__(
        self, cores: Collection[int], supervisors: Callable[[], Iterable[Supervisor]], has_gpus: Callable[[], bool]
    ) -> None:
        """`has_gpus`: whether the machine has some, so that where a model lies must be known first."""
        self._physical = physical_cores(cores)  # asked once: a large machine has hundreds
        self._supervisors = supervisors
        self._has_gpus = has_gpus

    def settle(self) -> None:
        """Called when something has changed; what has not is left alone."""
        sharing = [each for each in self._supervisors() if self._shares(each)]
        if not sharing:
            return
        claims = [Claim(each.plan.instance_id, each.busy) for each in sharing]
        parts = share(self._left(), claims)
        for supervisor in sharing:
            supervisor.bind(parts[supervisor.plan.instance_id])

    def _shares(self, supervisor: Supervisor) -> bool:
        """Whether it computes on the CPU, and nobody has said on which cores."""
        if not supervisor.computes or supervisor.plan.pin.cores:
            return False
        return not self._has_gpus() or CPU in supervisor.plan.placed

    def _left(self) -> list[list[int]]:
        """The cores that no instance was given by hand; all, if that are none."""
        given = {core for each in self._supervisors() if each.computes for core in each.plan.pin.cores}
        parts = ([core for core in physical if core not in given] for physical in self._physical)
        return [part for part in parts if part] or self._physical
