"""Whose turn it is: priorities, ageing, fairness. Pure decisions."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atelier.submission import MOST_PRIORITY

LEVEL_SECONDS = 10.0  # of waiting that make up for one step of priority


@dataclass(frozen=True, slots=True)
class Bid:
    """What a sequence that waits for its turn has to say for itself."""

    priority: int  # the lower goes first
    waited: float  # seconds
    fairness_key: str = ""


def next_in_turn(waiting: Sequence[Bid], running: Sequence[str]) -> int:
    """Which of the waiting sequences, in order of arrival, starts next beside those of the `running` keys.

    1. The most urgent level, after ageing.
    2. Among equals the key with the fewest running sequences.
    3. Among equals the one that came first:

        running: A A B   waiting: A A B C   -->  C, then B, then A, then A
    """
    level, shares = levels(waiting), Counter(running)
    return min(range(len(waiting)), key=lambda i: (level[waiting[i].priority], shares[waiting[i].fairness_key], i))


def levels(bids: Sequence[Bid]) -> Mapping[int, int]:
    """Each priority's level: itself, less a step for every LEVEL_SECONDS that its oldest bid has waited.

    A priority ages as a whole, so that among its bids fairness and arrival decide as ever. No level
    goes beyond the most urgent priority: whoever has waited long enough shares it with those that ask
    for it, and fairness between the keys decides. So nobody waits for ever behind urgent ones.
    """
    longest: dict[int, float] = {}
    for bid in bids:
        longest[bid.priority] = max(bid.waited, longest.get(bid.priority, 0.0))
    return {priority: max(-MOST_PRIORITY, priority - _steps(waited)) for priority, waited in longest.items()}


def _steps(waited: float) -> int:
    return math.floor(waited / LEVEL_SECONDS)
