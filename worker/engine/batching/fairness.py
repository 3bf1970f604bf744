"""Which waiting sequence starts next: priorities, ageing, fairness between keys. Pure."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atelier.submission import MOST_PRIORITY

LEVEL_SECONDS = 10.0  # of waiting that raise the priority by one level


@dataclass(frozen=True, slots=True)
class Bid:
    """What decides when a waiting sequence starts."""

    priority: int  # the lower goes first
    waited: float  # seconds
    fairness_key: str = ""


def next_in_turn(waiting: Sequence[Bid], running: Sequence[str]) -> int:
    """The index of the waiting sequence, in order of arrival, that starts next beside those of the `running` keys.

    1. The most urgent level, after ageing.
    2. Among equals the key with the fewest running sequences.
    3. Among equals the one that arrived first:

        running: A A B   waiting: A A B C   -->  C, then B, then A, then A
    """
    level, shares = levels(waiting), Counter(running)
    return min(range(len(waiting)), key=lambda i: (level[waiting[i].priority], shares[waiting[i].fairness_key], i))


def levels(bids: Sequence[Bid]) -> Mapping[int, int]:
    """Each priority's level: the priority, minus one for every LEVEL_SECONDS that its oldest bid has waited.

    A priority ages as a whole, so that fairness and arrival still decide among its bids. No level is lower than the
    most urgent priority: a sequence that has waited long enough shares it with urgent ones, and fairness between
    the keys decides. So no sequence waits for ever behind urgent ones.
    """
    longest: dict[int, float] = {}
    for bid in bids:
        longest[bid.priority] = max(bid.waited, longest.get(bid.priority, 0.0))
    return {priority: max(-MOST_PRIORITY, priority - _steps(waited)) for priority, waited in longest.items()}


def _steps(waited: float) -> int:
    return math.floor(waited / LEVEL_SECONDS)
