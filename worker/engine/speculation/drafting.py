"""Speculation: for which sequences a drafter proposes tokens, and how many. The model checks them in its next step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MOST_DRAFT_ROWS = 16  # draft tokens of a step


class GrowingText(Protocol):
    """The tokens of a sequence so far, prompt and completion; it only grows."""

    @property
    def text_length(self) -> int: ...

    def text_from(self, start: int) -> list[int]:
        """The tokens from number `start` on."""


class DecodingText(GrowingText, Protocol):
    """The text of a sequence that decodes in a slot."""

    @property
    def slot(self) -> int | None: ...

    @property
    def draft_room(self) -> int:
        """How many draft tokens could be checked."""


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """Asks for up to `count` tokens that may follow the text of a slot."""

    slot: int
    text: GrowingText
    count: int


class Drafter(Protocol):
    """Proposes draft tokens. Keeps per slot what it needs to follow its text. Used on the engine's thread alone."""

    def propose(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        """Draft tokens for each request, none where no token is likely. Raises DecodeFailed."""

    def forget(self, slot: int) -> None:
        """The slot's text has ended: its next one may be another."""


@dataclass(frozen=True, slots=True)
class Speculation:
    """A drafter, and how far ahead it may draft."""

    drafter: Drafter
    draft_tokens: int  # at most, for a sequence and step

    def drafts(self, decoding: Sequence[DecodingText]) -> dict[int, list[int]]:
        """Draft tokens to follow the sequences' pending tokens, by slot. Raises DecodeFailed."""
        counts = allot([sequence.draft_room for sequence in decoding], self.draft_tokens)
        pairs = zip(decoding, counts, strict=True)
        requests = [DraftRequest(each.slot, each, count) for each, count in pairs if count and each.slot is not None]
        proposed = self.drafter.propose(requests) if requests else []
        return {request.slot: tokens for request, tokens in zip(requests, proposed, strict=True)}


def allot(room: Sequence[int], most: int) -> list[int]:
    """How many draft tokens are worth computing for each sequence of a step, at most `most`.

    `room`: how many could be checked, of every sequence that decodes; 0 for those that cannot speculate.
    A draft token costs a row of the batch. That pays while few streams share the machine; beyond, none is drafted.
    """
    pays = most * len(room) <= MOST_DRAFT_ROWS
    return [min(each, most) if pays else 0 for each in room]
