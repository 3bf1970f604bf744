"""Finds where the last tokens of a text occurred before, and what followed them there.

Every pair of neighbouring tokens leads to its newest occurrence, and from there to the ones before it, as in LZ77. A
longer match begins with the same pair, so that one entry per token serves matches of any length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

SHORTEST = 2  # tokens of a match
LONGEST = 16  # tokens compared: the next token is no more certain after a longer match
MOST_COMPARED = 8  # occurrences, newest first


@dataclass(frozen=True, slots=True)
class Repetition:
    """`length` tokens are the same as at the text's end, at most LONGEST. `followers`: the tokens after them."""

    length: int
    followers: list[int]


class RepetitionIndex:
    """Tokens, to which more are appended, indexed by their pairs."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._newest: dict[int, int] = {}  # by pair: the number of the token after its newest occurrence
        self._older: list[int] = []  # by the number of a token: the same for the occurrence before; 0 for none

    def __len__(self) -> int:
        return len(self._tokens)

    def tail(self, tokens: int) -> list[int]:
        """The last tokens, at most so many."""
        return self._tokens[-tokens:]

    def from_number(self, start: int) -> list[int]:
        """The tokens from number `start` on."""
        return self._tokens[start:]

    def extend(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            end = len(self._tokens)
            if end >= SHORTEST:
                # The pair before this token is indexed only now: a text's own end must not be found.
                pair = _pair(self._tokens[-2], self._tokens[-1])
                self._older.append(self._newest.get(pair, 0))
                self._newest[pair] = end
            else:
                self._older.append(0)
            self._tokens.append(token)

    def find(self, tail: Sequence[int], most: int) -> Repetition | None:
        """The longest match of a text that ends with `tail`, the newest of several; up to `most` followers."""
        if len(tail) < SHORTEST:
            return None
        best, best_at = 0, 0
        at = self._newest.get(_pair(tail[-2], tail[-1]), 0)
        for _ in range(MOST_COMPARED):
            if not at or best == min(len(tail), LONGEST):
                break
            if (length := self._common(at, tail)) > best:
                best, best_at = length, at
            at = self._older[at]
        return Repetition(best, self._followers(best_at, most)) if best else None

    def _common(self, end: int, tail: Sequence[int]) -> int:
        """How many tokens before number `end` are the last ones of `tail`; its pair is known to be."""
        length = SHORTEST
        most = min(end, len(tail), LONGEST)
        while length < most and self._tokens[end - 1 - length] == tail[-1 - length]:
            length += 1
        return length

    def _followers(self, at: int, most: int) -> list[int]:
        """The tokens from `at` on. Where they reach the end, they repeat, as a text does that repeats itself."""
        found = self._tokens[at : at + most]
        while len(found) < most:
            found += found[: most - len(found)]
        return found


def _pair(first: int, second: int) -> int:
    return (first << 32) + second
