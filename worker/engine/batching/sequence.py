"""One choice of one request, from its prompt to its last token. Owned by the engine's thread."""

import time
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import replace
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from atelier.submission import ToolCallPiece
from worker.engine.batching.fairness import Bid
from worker.engine.batching.scheduler import finer
from worker.engine.batching.ticket import Ticket
from worker.engine.cache.prefix_tree import Piece, set_apart
from worker.engine.constraint.constraint import Matcher
from worker.engine.interface import (
    Delta,
    Echoed,
    Finished,
    PromptProgress,
    SequenceFigures,
    SequenceState,
    Statistics,
    StopReason,
    TokenLogprob,
)
from worker.engine.model.decode_run import Image, Run
from worker.engine.model.vocabulary import Vocabulary
from worker.engine.prompt.prompt_preparation import Prepared
from worker.engine.prompt.prompt_slices import BLOCK, Slicing
from worker.engine.sampling.detokenizer import Detokenizer
from worker.engine.sampling.logprobs import token_logprobs
from worker.engine.sampling.sampler import Sampler
from worker.engine.sampling.stop_strings import StopScanner
from worker.output.completion_parts import Part, Reasoning, Text

RATED = 16  # tokens of a call whose logits are all read: llama.cpp keeps a row of the vocabulary for each
WHOLE = -1  # stands for the end of a prompt, where it is a piece of one


class Sequence:
    """WAITING (no slot) -> PLACED (slot) -> PREFILL (begun) -> DECODE (pending) -> finished.

    `pending` are the tokens that are decided and not in the cache yet: the sampled one, and after
    it those that a constraint leaves no choice about.
    """

    def __init__(
        self,
        ticket: Ticket,
        choice: int,
        prepared: Prepared,
        seed: int,
        vocabulary: Vocabulary,
    ) -> None:
        request = prepared.request
        self.ticket = ticket
        self.choice = choice
        self.prompt = prepared.tokens
        self.images = prepared.images  # by where they start
        self._echo = request.echo
        self._logprobs = request.logprobs
        # Ends of the prompt's slices.
        self.slices = _rated_slices(self.prompt) if self.rates_prompt else prepared.slices
        # And of what is computed at once: the cache is cut at the former alone.
        self._ends = sorted({*self.slices, *_image_ends(self.images)}) if self.images else self.slices
        self.scales = prepared.scales  # of the adapters
        pieces = _pieces(self.prompt, self.slices) if prepared.reusable else []
        # The end of the prompt is claimed too: nobody can go on from it, but its twins can start with it.
        # A prompt whose tokens are rated is computed whole, and claims nothing: a cache has no logits.
        whole = [*pieces, (*self.prompt[sum(map(len, pieces)) :], WHOLE)]
        self.claims = [] if self.rates_prompt else self._adapted(whole)
        self.pieces = self.claims[:-1]
        self.limit = prepared.limit
        self.dropped = prepared.dropped
        self.fairness_key = request.fairness_key
        self.priority = request.priority
        self.request_id = request.request_id
        self.wants_progress = request.prompt_progress
        self.slot: int | None = None
        self.begun = False
        self.done = 0  # tokens of the prompt in the cache
        self.reused = 0
        self.pending: list[int] = []
        self.matcher: Matcher | None = prepared.matcher.copy() if prepared.matcher else None
        self.sampler = Sampler(request.sampling, seed + choice, vocabulary)
        self.sampler.read_prompt([token for token in self.prompt if token >= 0])
        self.drafted = self.accepted = 0  # tokens guessed ahead, and found right
        self._vocabulary = vocabulary
        self._limited_by_context = prepared.limited_by_context
        self._echoed = Detokenizer(vocabulary)
        self._text = Detokenizer(vocabulary, prepared.marks)
        self._scanner = StopScanner(request.stop)
        self._output = prepared.output()
        self._called = False  # a tool
        self._reasoning_tokens = 0
        self._completion: list[int] = []
        self._started = 0.0
        self._first_token = 0.0

    @property
    def budget(self) -> int:
        """Cache cells that it may come to need."""
        return len(self.prompt) + self.limit

    @property
    def in_prefill(self) -> bool:
        return self.begun and not self.pending

    @property
    def slices_left(self) -> list[int]:
        """The lengths of the slices that are not computed yet; of images, of their parts."""
        ends = [end for end in self._ends if end > self.done]
        return [end - start for start, end in zip([self.done, *ends], ends, strict=False)]

    @property
    def position(self) -> int:
        """Where the first pending token goes in the sequence."""
        return len(self.prompt) + self._predicted - len(self.pending)

    def bid(self, now: float) -> Bid:
        return Bid(self.priority, self.ticket.age(now), self.fairness_key)

    def place(self, slot: int) -> None:
        """It waits no more: a slot is its own."""
        self.slot = slot
        self.ticket.started = True

    def begin(self, cached: int) -> None:
        """Its first `cached` tokens are in its slot."""
        self.begun = True
        self.done = self.reused = cached
        self._started = time.monotonic()

    def prompt_runs(self, slices: Seq[int], *, joined: bool) -> list[Run]:
        """The next slices of the prompt, one by one, or `joined`: as one run, but for images."""
        starts = list(accumulate(slices, initial=self.done))
        borders = [starts[0]]
        for start, end in pairwise(starts):
            if joined and len(borders) > 1 and not (self._image_at(borders[-2]) or self._image_at(start)):
                borders.pop()
            borders.append(end)
        return [self._prompt_run(start, end) for start, end in pairwise(borders)]

    def _prompt_run(self, start: int, end: int) -> Run:
        """Its last token's logits count, if it is the prompt's; all of them, where the prompt is rated."""
        assert self.slot is not None
        if self.rates_prompt:
            return Run(self.slot, self.prompt[start:end], start, 0, self.scales, rated=True)
        silent = end - start - 1 if end == len(self.prompt) else end - start
        found = self._image_at(start)
        image = found[1].part(start - found[0], end - found[0]) if found else None
        return Run(self.slot, self.prompt[start:end], start, silent, self.scales, image)

    def _image_at(self, token: int) -> tuple[int, Image] | None:
        """The image that this token of the prompt is a cell of, and where it starts."""
        return next((each for each in self.images.items() if each[0] <= token < each[0] + len(each[1])), None)

    def finer_slices_left(self) -> list[int]:
        """In units that fill a step's time; a part of an image is not cut further."""
        at = self.done
        units: list[int] = []
        for tokens in self.slices_left:
            units += [tokens] if self._image_at(at) else finer([tokens])
            at += tokens
        return units

    def run(self, guesses: Seq[int]) -> Run:
        """Its pending tokens, of which the last one's logits count, and guesses, whose logits tell if they hold."""
        assert self.slot is not None
        return Run(self.slot, [*self.pending, *guesses], self.position, len(self.pending) - 1, self.scales)

    @property
    def draft_room(self) -> int:
        """Guesses after the pending token that could be checked: a constraint's tokens and their odds cannot.

        Nobody guesses after images: who guesses sees tokens alone.
        """
        if self.images or self.matcher is not None or self.wants_logprobs or len(self.pending) != 1:
            return 0
        return self.limit - self._predicted - 1

    @property
    def text_length(self) -> int:
        return len(self.prompt) + self._predicted

    def text_from(self, start: int) -> list[int]:
        """Its tokens from number `start` on, prompt and completion."""
        into = start - len(self.prompt)
        return self._completion[into:] if into >= 0 else [*self.prompt[start:], *self._completion]

    def blocks(self, start: int) -> list[Piece]:
        """What the cache holds of the text from token `start` on, in pieces as prompts are cut into.

        Nothing, where an image ends the prompt: it is never cut.
        """
        if any(at >= start for at in self.images):
            return []
        text = self.text_from(0)[: self.position]
        ends = range(start + BLOCK, len(text) + 1, BLOCK)
        blocks: list[Piece] = [tuple(text[end - BLOCK : end]) for end in ends]
        return blocks if start else self._adapted(blocks)

    def is_twin_of(self, other: "Sequence") -> bool:
        """Whether both have the same prompt, computed in the same way."""
        return not self.rates_prompt and self.prompt == other.prompt and self.scales == other.scales

    def _adapted(self, pieces: list[Piece]) -> list[Piece]:
        """The beginning of a text, apart from that of the same text with other adapters."""
        return set_apart(pieces, self.scales) if self.scales else pieces

    def progress(self) -> PromptProgress:
        return PromptProgress(len(self.prompt), self.reused, self.done)

    @property
    def state(self) -> SequenceState:
        if self.slot is None:
            return SequenceState.WAITING
        return SequenceState.DECODE if self.pending else SequenceState.PREFILL

    def figures(self, now: float) -> SequenceFigures:
        return SequenceFigures(
            request_id=self.request_id,
            choice=self.choice,
            state=self.state,
            priority=self.priority,
            prompt_tokens=len(self.prompt),
            done_tokens=self.done,
            cached_tokens=self.reused,
            predicted_tokens=self._predicted,
            age_seconds=self.ticket.age(now),
        )

    @property
    def rates_prompt(self) -> bool:
        """Whether the log-probabilities of the prompt's tokens are told."""
        return self._echo is not None and self._logprobs is not None

    def rate(self, start: int, rows: Seq[NDArray[np.float32]]) -> Echoed:
        """The prompt's tokens that these logits tell the odds of: `rows` are those of its tokens from `start` on."""
        first = [TokenLogprob(self.prompt[0], self._vocabulary.piece(self.prompt[0]), None)] if start == 0 else []
        followers = self.prompt[start + 1 : start + 1 + len(rows)]
        rated = [*first, *(self.logprob(row, token) for row, token in zip(rows, followers, strict=False))]
        text = "".join(self._echoed.push(each.id) for each in rated)
        whole = start + len(rows) == len(self.prompt)
        return Echoed(self.choice, text + self._echoed.flush() if whole else text, rated)

    def echo(self) -> Echoed | None:
        """The prompt, where it is told and its tokens' odds are not."""
        if self._echo is None or self.rates_prompt:
            return None
        text = "".join(map(self._echoed.push, self.prompt)) + self._echoed.flush()
        return Echoed(self.choice, text)

    def end_unpredicted(self) -> Finished:
        """The end of one that has no token to predict."""
        now = self._first_token = time.monotonic()
        return Finished(self.choice, StopReason.MAX_PREDICTED_TOKENS_REACHED, None, self._statistics(now))

    def take(self, token: int, logprob: TokenLogprob | None = None) -> tuple[Seq[Delta], Finished | None]:
        """Take a sampled token, and those that a constraint forces after it: their text, and the end if it comes."""
        before = self._predicted
        self.pending = []
        shown, end = self._advance(token)
        if end is None and self.matcher is not None and self._logprobs is None:
            more, end = self._take_forced(self.matcher)
            shown += more
        now = time.monotonic()
        self._first_token = self._first_token or now
        parts = [*self._output.push(shown if end is None else shown + self._rest())]
        if end is None and self._output.complete:
            end = StopReason.EOS_FOUND
        if end is not None:
            parts += self._output.flush()
        self._called = self._called or any(isinstance(part, ToolCallPiece) for part in parts)
        self._reasoning_tokens += self._predicted - before if parts and isinstance(parts[-1], Reasoning) else 0
        deltas = self._deltas(parts, self._predicted - before, (logprob,) if logprob else ())
        if end is None:
            return deltas, None
        if self._called and end is StopReason.EOS_FOUND:
            end = StopReason.TOOL_CALLS
        finished = Finished(self.choice, end, self._scanner.found, self._statistics(now))
        return [
            delta for delta in deltas if delta.tokens or delta.text or delta.reasoning or delta.tool_calls
        ], finished

    def _deltas(self, parts: Seq[Part], tokens: int, logprobs: Seq[TokenLogprob]) -> list[Delta]:
        """The parts in their order: a delta holds reasoning, then text, then calls. The first counts the tokens."""
        deltas = [Delta(self.choice, "", tokens, logprobs)]
        for part in parts:
            last = deltas[-1]
            match part:
                case Reasoning(text) if not last.text and not last.tool_calls:
                    deltas[-1] = replace(last, reasoning=last.reasoning + text)
                case Text(text) if not last.tool_calls:
                    deltas[-1] = replace(last, text=last.text + text)
                case ToolCallPiece():
                    deltas[-1] = replace(last, tool_calls=[*last.tool_calls, part])
                case Reasoning(text):
                    deltas.append(Delta(self.choice, "", 0, reasoning=text))
                case Text(text):
                    deltas.append(Delta(self.choice, text, 0))
        return deltas

    @property
    def _predicted(self) -> int:
        return len(self._completion)

    @property
    def wants_logprobs(self) -> bool:
        return self._logprobs is not None

    def logprob(self, logits: NDArray[np.float32], token: int) -> TokenLogprob:
        """The token's log-probability among these logits, with those of as many tokens as were asked for."""
        own, likeliest = token_logprobs(logits, token, self._logprobs or 0)
        piece = self._vocabulary.piece
        top = [TokenLogprob(each, piece(each), value) for each, value in likeliest]
        return TokenLogprob(token, piece(token), own, top)

    def _take_forced(self, matcher: Matcher) -> tuple[str, StopReason | None]:
        shown = ""
        for token in matcher.forced():
            self.sampler.accept(token)
            more, end = self._advance(token)
            shown += more
            if end is not None:
                return shown, end
        return shown, None

    def _advance(self, token: int) -> tuple[str, StopReason | None]:
        """One token further: the text that it makes certain, and the reason if it is the last."""
        complete = self.matcher is not None and not self.matcher.consume(token)
        if self._vocabulary.is_end(token):
            return "", StopReason.EOS_FOUND
        self.pending.append(token)
        self._completion.append(token)
        shown = self._scanner.push(self._text.push(token))
        if self._scanner.found is not None:
            return shown, StopReason.STOP_STRING_FOUND
        if complete:
            return shown, StopReason.EOS_FOUND
        if self._predicted >= self.limit:
            return shown, self._limit_reason()
        return shown, None

    def _rest(self) -> str:
        """What was held back, once no more text comes."""
        if self._scanner.found is not None:
            return ""
        return self._scanner.push(self._text.flush()) + self._scanner.flush()

    def _limit_reason(self) -> StopReason:
        if self._limited_by_context:
            return StopReason.CONTEXT_LENGTH_REACHED
        return StopReason.MAX_PREDICTED_TOKENS_REACHED

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
            draft_tokens=self.drafted,
            accepted_draft_tokens=self.accepted,
            reasoning_tokens=self._reasoning_tokens,
        )

    def close(self) -> None:
        self.sampler.close()


def _rated_slices(prompt: Seq[int]) -> list[int]:
    """Ends of slices that a call can rate as a whole."""
    return [*range(RATED, len(prompt), RATED), len(prompt)]


def _image_ends(images: Mapping[int, Image]) -> list[int]:
    """Ends of the parts of images."""
    return [at + end for at, image in images.items() for end in Slicing(image.at_once).cut(range(len(image)))]


def _pieces(prompt: Seq[int], ends: Seq[int]) -> list[Piece]:
    """The tokens of every slice but the last, which is computed anew even if it is known: its logits are not kept."""
    starts = [0, *ends]
    return [tuple(prompt[start:end]) for start, end in zip(starts, ends[:-1], strict=False)]
