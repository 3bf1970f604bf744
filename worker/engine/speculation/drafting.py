"""The parts of speculation: a text that is followed, and a drafter that proposes its next tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.engine.speculation.acceptance_rates import Evidence


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
    def fairness_key(self) -> str: ...

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt."""

    @property
    def pending_length(self) -> int:
        """Tokens that the next step computes in any case."""

    @property
    def draft_room(self) -> int:
        """How many draft tokens could be checked."""

    def allowed(self, tokens: Sequence[int]) -> int:
        """How many of these tokens may follow, one after the other."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What could be drafted for a text: the evidence for each token, and the tokens where they are known already."""

    evidence: Sequence[Evidence]
    tokens: Sequence[int] | None = None  # None: drafting them takes time


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """Asks for up to `count` tokens that may follow the text of a slot."""

    slot: int
    text: DecodingText
    count: int


class Drafter(Protocol):
    """Proposes draft tokens. Keeps per slot what it needs to follow its text. Used on the engine's thread alone."""

    @property
    def draft_seconds(self) -> float:
        """To draft one more token, for all slots at once."""

    def expected_rate(self, evidence: Evidence) -> float:
        """The share of tokens with this evidence that are right, before it is measured."""

    def outlook(self, slot: int, text: DecodingText, most: int) -> Outlook:
        """What it could draft of the next `most` tokens. Called in every step of the text."""

    def propose(self, requests: Sequence[DraftRequest]) -> list[list[int] | None]:
        """Draft tokens for each request, fewer where none is likely; None where it has not read the whole text yet.

        Raises DecodeFailed.
        """

    def forget(self, slot: int) -> None:
        """The slot's text has ended: its next one may be another."""
