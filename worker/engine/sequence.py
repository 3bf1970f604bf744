"""One choice of one request, from its prompt to its last token. Owned by the engine's thread."""

import time
from dataclasses import dataclass, field

from worker.engine.constraint import Matcher
from worker.engine.detokenizer import Detokenizer
from worker.engine.interface import Delta, Finished, Source, Statistics, StopReason
from worker.engine.prepare import Prepared
from worker.engine.sampler import Sampler
from worker.engine.scheduler import Slot
from worker.engine.stop_strings import StopScanner
from worker.engine.vocabulary import Vocabulary


@dataclass(slots=True)
class Ticket:
    """What the event loop and the engine's thread share about a call: whether anyone still wants it."""

    source: Source
    open_choices: int
    submitted: float = field(default_factory=time.monotonic)
    cancelled: bool = False


class Sequence:
    """WAITING (no slot) -> PREFILL (done < prompt) -> DECODE (next_token) -> finished."""

    def __init__(self, ticket: Ticket, choice: int, prepared: Prepared, seed: int, vocabulary: Vocabulary) -> None:
        self.ticket = ticket
        self.choice = choice
        self.prompt = prepared.tokens
        self.limit = prepared.limit
        self.fairness_key = prepared.request.fairness_key
        self.slot: Slot | None = None
        self.done = 0  # tokens of the prompt in the cache
        self.reused = 0
        self.next_token: int | None = None  # sampled, not yet in the cache
        self.matcher: Matcher | None = prepared.matcher.copy() if prepared.matcher else None
        self.sampler = Sampler(prepared.request.sampling, seed + choice, vocabulary)
        self.sampler.read_prompt(self.prompt)
        self._vocabulary = vocabulary
        self._limited_by_context = prepared.limited_by_context
        self._text = Detokenizer(vocabulary)
        self._scanner = StopScanner(prepared.request.stop)
        self._predicted = 0
        self._started = 0.0
        self._first_token = 0.0

    @property
    def budget(self) -> int:
        """Cache cells that it may come to need."""
        return len(self.prompt) + self.limit

    @property
    def position(self) -> int:
        """Where `next_token` goes in the sequence."""
        return len(self.prompt) + self._predicted - 1

    def place(self, slot: Slot, reused: int) -> None:
        self.slot, self.done, self.reused = slot, reused, reused
        self._started = time.monotonic()

    def advance(self, token: int) -> tuple[Delta | None, Finished | None]:
        """Take a sampled token: the text that it makes certain, and the end, if it is one."""
        now = time.monotonic()
        self._first_token = self._first_token or now
        complete = self.matcher is not None and not self.matcher.consume(token)
        if self._vocabulary.is_end(token):
            return self._end(StopReason.EOS_FOUND, "", 0, now)
        self._predicted += 1
        self.next_token = token
        shown = self._scanner.push(self._text.push(token))
        if self._scanner.found is not None:
            return self._end(StopReason.STOP_STRING_FOUND, shown, 1, now)
        if complete:
            return self._end(StopReason.EOS_FOUND, shown, 1, now)
        if self._predicted >= self.limit:
            return self._end(self._limit_reason(), shown, 1, now)
        return Delta(self.choice, shown, 1), None

    def _limit_reason(self) -> StopReason:
        if self._limited_by_context:
            return StopReason.CONTEXT_LENGTH_REACHED
        return StopReason.MAX_PREDICTED_TOKENS_REACHED

    def _end(self, reason: StopReason, shown: str, tokens: int, now: float) -> tuple[Delta | None, Finished]:
        if self._scanner.found is None:
            shown += self._scanner.push(self._text.flush())
            shown += self._scanner.flush()
        finished = Finished(self.choice, reason, self._scanner.found, self._statistics(now))
        return (Delta(self.choice, shown, tokens) if shown or tokens else None), finished

    def _statistics(self, now: float) -> Statistics:
        generation = now - self._first_token
        return Statistics(
            prompt_tokens=len(self.prompt),
            cached_tokens=self.reused,
            predicted_tokens=self._predicted,
            queue_seconds=self._started - self.ticket.submitted,
            time_to_first_token_seconds=self._first_token - self.ticket.submitted,
            generation_seconds=generation,
            tokens_per_second=(self._predicted - 1) / generation if self._predicted > 1 and generation > 0 else 0.0,
        )

    def close(self) -> None:
        self.sampler.close()
