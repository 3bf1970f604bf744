"""One choice of one request, from its prompt to its last token."""

import time
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from atelier.errors import DeadlineExceeded
from atelier.generation_types import Finished, Statistics, StopReason
from worker.engine.batching.completion import Completion
from worker.engine.batching.fairness import Bid
from worker.engine.batching.prompt_prefill import PromptEcho, PromptPrefill
from worker.engine.cache.prefix_tree import Piece
from worker.engine.interface import (
    NO_DEADLINES,
    Deadlines,
    Delta,
    Emitted,
    Failed,
    PromptProgress,
    SequenceFigures,
    SequenceState,
    Source,
)
from worker.engine.model.context import Context
from worker.engine.model.decode_run import Run
from worker.engine.model.vocabulary import Vocabulary
from worker.engine.prompt.prompt_preparation import Prepared


@dataclass(slots=True)
class Ticket:
    """One call, for all of its choices. Shared by the event loop, which cancels it, and the engine's thread."""

    source: Source
    open_choices: int
    deadlines: Deadlines = NO_DEADLINES
    submitted: float = field(default_factory=time.monotonic)
    started: bool = False  # one of its choices has had a slot
    cancelled: bool = False

    def age(self, now: float) -> float:
        """Seconds since it was submitted."""
        return now - self.submitted

    def missed(self, now: float) -> DeadlineExceeded | None:
        """The error of a call that is past a deadline."""
        return self.deadlines.missed(self.age(now), started=self.started)


def cancel_overdue(tickets: Iterable[Ticket], now: float) -> list[Emitted]:
    """Cancel the calls that are past a deadline; one Failed for each, however many choices it has."""
    failed: list[Emitted] = []
    for ticket in tickets:
        if not ticket.cancelled and (error := ticket.missed(now)) is not None:
            ticket.cancelled = True
            failed.append((ticket.source, Failed(error)))
    return failed


class Sequence:
    """WAITING (no slot) -> PLACED (slot) -> PREFILL (begun) -> DECODE (tokens pending) -> finished.

    Owned by the engine's thread. The prompt, the completion and the echo each keep their own state.
    """

    def __init__(self, ticket: Ticket, choice: int, prepared: Prepared, seed: int, vocabulary: Vocabulary) -> None:
        request = prepared.request
        self.ticket = ticket
        self.choice = choice
        self.request_id = request.request_id
        self.fairness_key = request.fairness_key
        self.priority = request.priority
        self.wants_progress = request.prompt_progress
        self.echo = None if request.echo is None else PromptEcho(choice, prepared.tokens, vocabulary, request.logprobs)
        self.prompt = PromptPrefill(prepared, scored=self.echo is not None and self.echo.scored)
        self.completion = Completion(choice, prepared, seed + choice, vocabulary)
        self.slot: int | None = None
        self.begun = False
        self.drafted = self.accepted = 0  # draft tokens that were checked, and those that were right
        self._started = 0.0
        self._first_token = 0.0

    @property
    def budget(self) -> int:
        """Cache cells that it may need."""
        return len(self.prompt) + self.completion.limit

    @property
    def in_prefill(self) -> bool:
        return self.begun and not self.completion.pending

    def bid(self, now: float) -> Bid:
        return Bid(self.priority, self.ticket.age(now), self.fairness_key)

    def place(self, slot: int) -> None:
        """A slot is its own from now on."""
        self.slot = slot
        self.ticket.started = True

    def begin(self, cached: int) -> None:
        """The first `cached` tokens of the prompt are in its slot."""
        self.begun = True
        self.prompt.begin(cached)
        self._started = time.monotonic()

    # The text, prompt and completion.

    @property
    def position(self) -> int:
        """Where the first pending token goes in the text."""
        return self.text_length - len(self.completion.pending)

    @property
    def prompt_length(self) -> int:
        return len(self.prompt)

    @property
    def pending_length(self) -> int:
        return len(self.completion.pending)

    @property
    def text_length(self) -> int:
        return len(self.prompt) + len(self.completion.tokens)

    def text_from(self, start: int) -> list[int]:
        """Its tokens from number `start` on."""
        into = start - len(self.prompt)
        return self.completion.tokens[into:] if into >= 0 else [*self.prompt.tokens[start:], *self.completion.tokens]

    def blocks(self, start: int) -> tuple[list[Piece], Piece]:
        """What the cache holds of the text from token `start` on, in pieces like a prompt's; then the rest."""
        return self.prompt.blocks(self.text_from(0)[: self.position], start)

    # Decoding.

    def run(self, drafts: Seq[int]) -> Run:
        """The pending tokens, of which the last one's logits are needed, and the draft tokens, of which all are."""
        assert self.slot is not None
        pending = self.completion.pending
        return Run(self.slot, [*pending, *drafts], self.position, len(pending) - 1, self.prompt.scales)

    @property
    def draft_room(self) -> int:
        """How many draft tokens could be checked: none after images, whose cells no drafter can read."""
        return 0 if self.prompt.has_images else self.completion.draft_room

    def allowed(self, tokens: Seq[int]) -> int:
        """How many of these tokens may come next, one after the other."""
        return self.completion.allowed(tokens)

    def sample(self, context: Context, index: int) -> tuple[Seq[Delta], Finished | None]:
        """Draw the next token from the logits of the last call's token `index`: its text, and the end if it is."""
        deltas, reason = self.completion.sample(context, index)
        now = time.monotonic()
        self._first_token = self._first_token or now
        return deltas, None if reason is None else self._finished(reason, now)

    def finish_without_tokens(self) -> Finished:
        """The end of a sequence that predicts no token."""
        now = self._first_token = time.monotonic()
        return self._finished(StopReason.MAX_PREDICTED_TOKENS_REACHED, now)

    # What is reported of it.

    def progress(self) -> PromptProgress:
        return PromptProgress(len(self.prompt), self.prompt.cached, self.prompt.done)

    @property
    def state(self) -> SequenceState:
        if self.slot is None:
            return SequenceState.WAITING
        return SequenceState.DECODE if self.completion.pending else SequenceState.PREFILL

    def figures(self, now: float) -> SequenceFigures:
        return SequenceFigures(
            request_id=self.request_id,
            choice=self.choice,
            state=self.state,
            priority=self.priority,
            prompt_tokens=len(self.prompt),
            done_tokens=self.prompt.done,
            cached_tokens=self.prompt.cached,
            predicted_tokens=len(self.completion.tokens),
            age_seconds=self.ticket.age(now),
        )

    def _finished(self, reason: StopReason, now: float) -> Finished:
        predicted, generation = len(self.completion.tokens), now - self._first_token
        statistics = Statistics(
            prompt_tokens=len(self.prompt),
            cached_tokens=self.prompt.cached,
            predicted_tokens=predicted,
            queue_seconds=self._started - self.ticket.submitted,
            time_to_first_token_seconds=self._first_token - self.ticket.submitted,
            generation_seconds=generation,
            tokens_per_second=(predicted - 1) / generation if predicted > 1 and generation > 0 else 0.0,
            draft_tokens=self.drafted,
            accepted_draft_tokens=self.accepted,
            reasoning_tokens=self.completion.reasoning_tokens,
        )
        return Finished(self.choice, reason, self.completion.stop_string, statistics)

    def close(self) -> None:
        self.completion.close()
