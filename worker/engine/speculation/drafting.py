"""Guessing ahead: who guesses, and for which sequences how many tokens."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol

from worker.engine.batching.sequence import Sequence

MOST_DRAFT_ROWS = 16  # guessed tokens of a step


class Text(Protocol):
    """The tokens of a sequence so far, prompt and completion; it only ever grows."""

    @property
    def text_length(self) -> int: ...

    def text_from(self, start: int) -> list[int]:
        """The tokens from number `start` on."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Up to `count` guesses are wanted at what follows the text of a slot."""

    slot: int
    text: Text
    count: int


class Drafter(Protocol):
    """Guesses ahead. Keeps for each slot what it needs to follow its text. Used on the engine's thread alone."""

    def propose(self, wishes: Seq[Wish]) -> list[list[int]]:
        """Guesses for each wish, none where nothing is likely; DecodeFailed."""

    def forget(self, slot: int) -> None:
        """The slot's text has ended: the next one may be another."""


@dataclass(frozen=True, slots=True)
class Speculation:
    """A drafter and how far ahead it may guess."""

    drafter: Drafter
    most: int  # tokens

    def guesses(self, decoding: Seq[Sequence]) -> dict[int, list[int]]:
        """Guesses at what follows the sequences' pending tokens, by slot; DecodeFailed."""
        counts = allot([sequence.guess_room for sequence in decoding], self.most)
        pairs = zip(decoding, counts, strict=True)
        wishes = [Wish(each.slot, each, count) for each, count in pairs if count and each.slot is not None]
        proposed = self.drafter.propose(wishes) if wishes else []
        return {wish.slot: guesses for wish, guesses in zip(wishes, proposed, strict=True)}


def allot(room: Seq[int], most: int) -> list[int]:
    """How many guesses are worth computing for each sequence of a step, at most `most`.

    `room`: how many could be checked; of every sequence that decodes, those that cannot guess included.
    A guess costs a row, which pays while few streams share the machine: beyond that nobody guesses.
    """
    pays = most * len(room) <= MOST_DRAFT_ROWS
    return [min(each, most) if pays else 0 for each in room]
