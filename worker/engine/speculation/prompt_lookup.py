"""Prompt lookup decoding: drafts what followed the same few tokens earlier, in the text or in its client's answers.

Source: https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from worker.engine.speculation.acceptance_rates import Evidence
from worker.engine.speculation.answer_pool import AnswerPool
from worker.engine.speculation.drafting import DecodingText, DraftRequest, Outlook
from worker.engine.speculation.repetition_index import LONGEST, SHORTEST, Repetition, RepetitionIndex

_CLASSES = (2, 3, 4, 5, 7, 10, LONGEST)  # lengths of matches whose next tokens are about equally often right
_EXPECTED = (0.25, 0.4, 0.5, 0.6, 0.75, 0.85, 0.93)  # how often, before it is measured


@dataclass(frozen=True, slots=True)
class MatchLength:
    """Evidence for a token: about how many tokens before it match, by number of the class, and where."""

    number: int
    elsewhere: bool  # in another answer


@dataclass(slots=True)
class _Followed:
    """A slot's text, and what is known to have followed its last tokens before."""

    text: DecodingText
    index: RepetitionIndex = field(default_factory=RepetitionIndex)
    followers: list[int] = field(default_factory=list)


class LookupDrafter:
    """Drafts from each sequence's own text, which it indexes as the text grows, and from a pool of answers."""

    draft_seconds = 0.0  # a look-up takes microseconds

    def __init__(self, pool: AnswerPool | None = None) -> None:
        self._pool = pool
        self._followed: dict[int, _Followed] = {}  # by slot

    def expected_rate(self, evidence: Evidence) -> float:
        assert isinstance(evidence, MatchLength)
        return _EXPECTED[evidence.number]

    def outlook(self, slot: int, text: DecodingText, most: int) -> Outlook:
        followed = self._followed.setdefault(slot, _Followed(text))
        index = followed.index
        index.extend(text.text_from(len(index)))
        tail = index.tail(LONGEST)
        found, elsewhere = index.find(tail, most), False
        if self._pool is not None and (other := self._pool.find(text.fairness_key, tail, most)) is not None:
            found, elsewhere = _longer(found, other)
        followed.followers = [] if found is None else found.followers
        evidence = [] if found is None else _evidence(found, elsewhere=elsewhere)
        return Outlook(evidence, followed.followers)

    def propose(self, requests: Sequence[DraftRequest]) -> list[list[int] | None]:
        return [self._followed[request.slot].followers[: request.count] for request in requests]

    def forget(self, slot: int) -> None:
        followed = self._followed.pop(slot, None)
        if followed is not None and self._pool is not None:
            self._pool.add(followed.text.fairness_key, followed.text.text_from(followed.text.prompt_length))


def _longer(own: Repetition | None, other: Repetition) -> tuple[Repetition, bool]:
    """The longer match, and whether it is the other; of two alike the text's own."""
    return (other, True) if own is None or other.length > own.length else (own, False)


def _class_of(length: int) -> int:
    """The number of the class of matches of this length."""
    return max(number for number, least in enumerate(_CLASSES) if least <= max(length, SHORTEST))


_EVIDENCE = {
    elsewhere: [MatchLength(_class_of(length), elsewhere) for length in range(LONGEST + 1)]
    for elsewhere in (False, True)
}


def _evidence(found: Repetition, *, elsewhere: bool) -> list[MatchLength]:
    """For each follower: if those before it are right, the match is longer by as many tokens."""
    by_length = _EVIDENCE[elsewhere]
    return [by_length[min(found.length + at, LONGEST)] for at in range(len(found.followers))]
