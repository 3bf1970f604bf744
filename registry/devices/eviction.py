"""Which instances must be unloaded to make room for another. Pure.

A busy instance is never unloaded, nor one that an operator loaded; of the others those that were idle for longest,
and no more of them than needed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class Tenant:
    """An instance that takes memory of one device."""

    id: str
    memory: int  # bytes, as estimated before it was loaded
    idle_seconds: float
    evictable: bool  # loaded by a request, and idle now


class Candidate(Protocol):
    """What may have to be unloaded."""

    @property
    def idle_seconds(self) -> float: ...

    @property
    def evictable(self) -> bool: ...


AnyCandidate = TypeVar("AnyCandidate", bound=Candidate)


def fewest_evictions(
    candidates: Sequence[AnyCandidate], enough: Callable[[Sequence[AnyCandidate]], bool]
) -> list[AnyCandidate] | None:
    """Those that must be unloaded so that it is `enough`, none of them needlessly; None if all would not suffice."""
    going: list[AnyCandidate] = []
    for candidate in sorted(candidates, key=lambda candidate: -candidate.idle_seconds):
        if enough(going):
            break
        if candidate.evictable:
            going.append(candidate)
    if not enough(going):
        return None
    for candidate in list(going):  # a small one that was taken early may be needless beside a large one
        rest = [each for each in going if each is not candidate]
        if enough(rest):
            going = rest
    return going


def evictions(needed: int, available: int, tenants: Sequence[Tenant]) -> list[str] | None:
    """The ids of those to unload so that `needed` bytes are available; None if that is impossible."""
    missing = needed - available
    going = fewest_evictions(tenants, lambda going: sum(each.memory for each in going) >= missing)
    return None if going is None else [tenant.id for tenant in going]
