"""How many instances a model should have, from its limits, its instances and how long they were overloaded. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from atelier.backoff import backoff_delay

UP_SECONDS = 2.0  # during which calls wait at every ready instance, before one is added
DOWN_SECONDS = 60.0  # during which one fewer would be enough, before one is removed
HEADROOM = 0.5  # the share of the remaining instances' slots that may then be in use
FIRST_DELAY = 1.0  # seconds before another attempt after a failure, doubled up to the longest
LONGEST_DELAY = 300.0


@dataclass(frozen=True, slots=True)
class Replica:
    """An instance that is loaded or loading."""

    id: str
    ready: bool
    loading: bool  # neither ready nor loading: stalled
    active: int  # sequences in work
    queued: int  # calls that wait
    parallel: int  # sequences that it decodes at once
    on_demand: bool  # loaded by a request or by scaling, not by an operator

    @property
    def overloaded(self) -> bool:
        """Whether calls wait. Calls without a sequence, such as embeddings, count as queued while they run."""
        return self.queued > (0 if self.active else self.parallel)


@dataclass(frozen=True, slots=True)
class Pressure:
    """Since when there has been too much work for the instances, or too little; None: not now. In seconds."""

    high_since: float | None = None
    low_since: float | None = None

    def after(self, replicas: Sequence[Replica], now: float) -> "Pressure":
        high, low = _too_few(replicas), _too_many(replicas)
        return Pressure(
            (self.high_since if self.high_since is not None else now) if high else None,
            (self.low_since if self.low_since is not None else now) if low else None,
        )


@dataclass(frozen=True, slots=True)
class Grow:
    """Add one. `needed`: the limits require it; otherwise only if memory is free."""

    needed: bool


@dataclass(frozen=True, slots=True)
class Shrink:
    """Remove this one."""

    id: str


def decide(least: int, most: int, replicas: Sequence[Replica], pressure: Pressure, now: float) -> Grow | Shrink | None:
    """What to change now; one step at a time.

    1. Fewer than the least: add one.
    2. Calls have waited at every ready instance for UP_SECONDS: add one, up to the most.
    3. One fewer would have been enough for DOWN_SECONDS: remove the newest idle one, down to the least, or to one.
    """
    if len(replicas) < least:
        return Grow(needed=True)
    if len(replicas) < most and _lasts(pressure.high_since, UP_SECONDS, now):
        return Grow(needed=False)
    if len(replicas) > max(least, 1) and _lasts(pressure.low_since, DOWN_SECONDS, now):
        idle = [each.id for each in replicas if each.on_demand and each.ready and not each.active and not each.queued]
        return Shrink(idle[-1]) if idle else None
    return None


def delay_after(failures: int) -> float:
    """Seconds before another attempt, after so many failures in a row."""
    return backoff_delay(failures, FIRST_DELAY, LONGEST_DELAY)


def _too_few(replicas: Sequence[Replica]) -> bool:
    """A loading instance may be all that is missing; a stalled one takes no calls from the others."""
    ready = [each for each in replicas if each.ready]
    loading = any(each.loading for each in replicas)
    return bool(ready) and not loading and all(each.overloaded for each in ready)


def _too_many(replicas: Sequence[Replica]) -> bool:
    if len(replicas) < 2 or not all(each.ready for each in replicas):
        return False
    slots = sum(each.parallel for each in replicas)
    fewer = slots - max(each.parallel for each in replicas)
    return sum(each.active + each.queued for each in replicas) <= HEADROOM * fewer


def _lasts(since: float | None, seconds: float, now: float) -> bool:
    return since is not None and now - since >= seconds
