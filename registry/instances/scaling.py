"""How many instances a model has: pure, from its limits, its instances and for how long they have been strained."""

from collections.abc import Sequence
from dataclasses import dataclass

from atelier.backoff import backoff_delay

UP_SECONDS = 2.0  # that every instance that answers has calls waiting, before there is one more
DOWN_SECONDS = 60.0  # that one fewer would have been enough, before there is
HEADROOM = 0.5  # of their places that those who stay may then have in use
FIRST_DELAY = 1.0  # seconds after an instance failed, doubled up to the longest
LONGEST_DELAY = 300.0


@dataclass(frozen=True, slots=True)
class Replica:
    """An instance that is there or on its way."""

    id: str
    ready: bool
    coming: bool  # on its way; neither: it does not answer
    active: int  # sequences in work
    queued: int  # calls that wait
    places: int  # sequences that it decodes at once
    grown: bool  # loaded by a request or by need, not by an operator

    @property
    def strained(self) -> bool:
        """Whether calls wait. Those that are no sequences, such as embeddings, are told as waiting while they work."""
        return self.queued > (0 if self.active else self.places)


@dataclass(frozen=True, slots=True)
class Strain:
    """Since when there has been too much work, or too little; None: there is not. Times in seconds."""

    high_since: float | None = None
    low_since: float | None = None

    def after(self, replicas: Sequence[Replica], now: float) -> "Strain":
        high, low = _too_few(replicas), _too_many(replicas)
        return Strain(
            (self.high_since if self.high_since is not None else now) if high else None,
            (self.low_since if self.low_since is not None else now) if low else None,
        )


@dataclass(frozen=True, slots=True)
class Grow:
    """One more. `needed`: the model shall have it; otherwise only if there is room that nobody else has."""

    needed: bool


@dataclass(frozen=True, slots=True)
class Shrink:
    """This one is not needed any more."""

    id: str


def decide(least: int, most: int, replicas: Sequence[Replica], strain: Strain, now: float) -> Grow | Shrink | None:
    """What to change now; one step at a time.

    1. Fewer than the least: one more.
    2. Calls wait at all that answer, and have done so for a while: one more, up to the most.
    3. One fewer has been enough for a while: the newest that is idle goes, down to the least, or to one.
    """
    if len(replicas) < least:
        return Grow(needed=True)
    if len(replicas) < most and _for(strain.high_since, UP_SECONDS, now):
        return Grow(needed=False)
    if len(replicas) > max(least, 1) and _for(strain.low_since, DOWN_SECONDS, now):
        idle = [each.id for each in replicas if each.grown and each.ready and not each.active and not each.queued]
        return Shrink(idle[-1]) if idle else None
    return None


def delay_after(failures: int) -> float:
    """Seconds before another attempt, after so many that failed in a row."""
    return backoff_delay(failures, FIRST_DELAY, LONGEST_DELAY)


def _too_few(replicas: Sequence[Replica]) -> bool:
    """One that is on its way may be all that is missing; one that does not answer takes no call from the others."""
    answering = [each for each in replicas if each.ready]
    coming = any(each.coming for each in replicas)
    return bool(answering) and not coming and all(each.strained for each in answering)


def _too_many(replicas: Sequence[Replica]) -> bool:
    if len(replicas) < 2 or not all(each.ready for each in replicas):
        return False
    places = sum(each.places for each in replicas)
    fewer = places - max(each.places for each in replicas)
    return sum(each.active + each.queued for each in replicas) <= HEADROOM * fewer


def _for(since: float | None, seconds: float, now: float) -> bool:
    return since is not None and now - since >= seconds
