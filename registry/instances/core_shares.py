"""Which cores each instance in main memory computes on: disjoint sets, divided among the instances at work.

Two models that compute on the same cores wait for each other's threads at every step, and together generate half of
the tokens that they generate on cores of their own. A worker runs one thread for each core that it is bound to,
except where the number of threads would change the text.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from atelier.hardware import physical_cores
from registry.devices.compute_device import CPU
from registry.devices.device_probe import DeviceProbe
from registry.instances.instance_supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class CoreClaim:
    """An instance that computes on the CPU."""

    id: str
    busy: bool


def share_cores(physical: Sequence[Sequence[int]], claims: Sequence[CoreClaim]) -> dict[str, list[int]]:
    """The cores of each instance, by id. `physical`: the logical cores of each physical one.

    The busy ones divide all cores, and the first of them take the remainder:

        4 cores; a and b are busy, c is idle  -->  a: 0-1, b: 2-3, c: 3 (its part if all were busy)

    If there are more instances than cores, several share one.
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
    """Binds workers to their cores, again whenever one starts or stops working."""

    def __init__(self, cores: Collection[int], instances: Iterable[Supervisor], probe: DeviceProbe) -> None:
        self._physical = physical_cores(cores)  # read once: a large machine has hundreds
        self._instances = instances
        self._probe = probe

    def settle(self) -> None:
        """Called when something has changed; bindings that stay the same are not applied again."""
        sharing = [each for each in self._instances if self._shares(each)]
        if not sharing:
            return
        parts = share_cores(self._shared(), [CoreClaim(each.plan.instance_id, each.worker.busy) for each in sharing])
        for supervisor in sharing:
            supervisor.worker.bind(parts[supervisor.plan.instance_id])

    def _shares(self, supervisor: Supervisor) -> bool:
        """Whether it computes on the CPU, and its cores were not requested.

        On a machine without GPUs that is known before it is placed.
        """
        if supervisor.worker.running is None or supervisor.plan.pin.cores:
            return False
        return not self._probe.may_have_gpus or CPU in supervisor.plan.placed

    def _shared(self) -> list[list[int]]:
        """The cores that were requested for no instance; all if none are left."""
        requested = {core for each in self._instances if each.worker.running for core in each.plan.pin.cores}
        parts = ([core for core in physical if core not in requested] for physical in self._physical)
        return [part for part in parts if part] or self._physical
