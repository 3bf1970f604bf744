"""Ends a completion's reasoning when its budget is spent: the end mark's tokens are forced, and the answer follows."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from atelier.errors import InvalidRequest
from worker.engine.model.vocabulary import Vocabulary
from worker.output.reasoning_section import ReasoningCounter, ReasoningSection


@dataclass(frozen=True, slots=True)
class Reopening:
    """The token that begins reasoning again, where it follows `after`."""

    after: tuple[int, ...]
    token: int


@dataclass(frozen=True, slots=True)
class ReasoningLimit:
    """A request's budget in tokens, and what ends the reasoning of its completions.

    `message`: precedes the end mark, and is a part of the budget; no tokens if the budget has no room for it.
    """

    budget: int
    closing: str
    closing_tokens: Sequence[int]
    message: Sequence[int] = ()
    reopening: Reopening | None = None

    @property
    def allowance(self) -> int:
        """Tokens until the message, or the end mark, is due."""
        return self.budget - len(self.message)


def limit_reasoning(budget: int, section: ReasoningSection, message: str, vocabulary: Vocabulary) -> ReasoningLimit:
    """Raises InvalidRequest if the vocabulary has no tokens for the end mark."""
    closing = vocabulary.tokenize(section.closing, add_special=False)
    if section.closing not in _written(closing, vocabulary):
        raise InvalidRequest(
            f"reasoning_budget: this model has no tokens for {section.closing!r}, which ends its reasoning. "
            "Leave reasoning_budget out, or set reasoning_end.",
            param="reasoning_budget",
        )
    words = vocabulary.tokenize_plain(message) if message else []
    return ReasoningLimit(
        budget, section.closing, closing, words if len(words) < budget else (), _reopening(section, vocabulary)
    )


def _reopening(section: ReasoningSection, vocabulary: Vocabulary) -> Reopening | None:
    """None where no token decides it: a mark of several tokens begins as other text does."""
    start = vocabulary.tokenize(section.start, add_special=False)
    if not section.others:
        return Reopening((), start[0]) if len(start) == 1 else None
    others = [vocabulary.tokenize(other, add_special=False) for other in section.others]
    shared = max(_common(start, other) for other in others)
    return Reopening(tuple(start[:shared]), start[shared]) if shared < len(start) else None


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _written(tokens: Sequence[int], vocabulary: Vocabulary) -> str:
    return b"".join(map(vocabulary.mark, tokens)).decode(errors="replace")


class ReasoningBudget:
    """Decides for one completion which tokens end its reasoning, and from when on.

    The counter has read every token of the completion before it is asked.
    """

    def __init__(self, limit: ReasoningLimit, counter: ReasoningCounter, vocabulary: Vocabulary) -> None:
        self._limit = limit
        self._counter = counter
        self._vocabulary = vocabulary
        self._queue: deque[int] = deque()
        self._spent = False

    def next_forced(self) -> int | None:
        """Take the token that has to follow; None if any may."""
        if not self._queue and self._counter.inside and self._counter.tokens >= self._limit.allowance:
            self._close()
        return self._queue.popleft() if self._queue else None

    def ends_before(self, lacking: int) -> bool:
        """Whether the reasoning ends before a token after which the last character lacks so many bytes.

        A byte may need a token: the budget must have room for all of them, or the character would be cut.
        """
        left = self._limit.allowance - self._counter.tokens
        if self._counter.inside and not self._queue and left <= lacking:
            self._close()
        return bool(self._queue)

    def forbidden(self, tokens: Sequence[int]) -> int | None:
        """The token that would begin reasoning again after these tokens, once the budget is spent."""
        reopening = self._limit.reopening
        if reopening is None or not self._spent or self._counter.inside:
            return None
        before = len(reopening.after)
        return reopening.token if tuple(tokens[len(tokens) - before :]) == reopening.after else None

    def _close(self) -> None:
        """An end mark that is begun is completed. The message is written once, where there is room for it."""
        limit, written = self._limit, self._counter.written_of(self._limit.closing)
        if written and (rest := self._vocabulary.continuation(limit.closing[written:])):
            self._queue.extend(rest)
        else:
            has_room = self._counter.tokens + len(limit.message) <= limit.budget
            self._queue.extend([*(limit.message if has_room else ()), *limit.closing_tokens])
        self._spent = True
