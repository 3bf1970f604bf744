"""How often draft tokens are right, by what speaks for them. Measured on every guess, whether it was drafted or not."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

Evidence = Hashable
"""What speaks for a draft token: tokens with the same evidence are about equally often right."""


@dataclass(slots=True)
class _Count:
    right: float = 0.0
    all: float = 0.0


class AcceptanceRates:
    """The share of right tokens by evidence. Older ones count less."""

    def __init__(self, expected: Callable[[Evidence], float], *, weight: float, memory: float) -> None:
        """`expected`: the rate before anything is measured, which counts like `weight` tokens.

        `memory`: about how many of the newest tokens count.
        """
        self._expected = expected
        self._weight = weight
        self._kept = 1 - 1 / memory
        self._counts: dict[Evidence, _Count] = {}

    def add(self, evidence: Evidence, *, right: bool) -> None:
        count = self._counts.setdefault(evidence, _Count())
        count.right = count.right * self._kept + right
        count.all = count.all * self._kept + 1

    def rate(self, evidence: Evidence) -> float:
        """The probability that a token with this evidence is right, if all before it are."""
        count = self._counts.get(evidence, _NOTHING)
        return (count.right + self._weight * self._expected(evidence)) / (count.all + self._weight)


_NOTHING = _Count()
