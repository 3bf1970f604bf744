"""A sequence of the scripted engine: one choice of a request, which generates the words of the script."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from atelier.generation_types import Finished, Statistics, StopReason, ToolCallPiece
from atelier.json_types import Json
from atelier.prompt_end import PromptEnd
from atelier.settings.groups import UNLIMITED
from atelier.submission import Echo
from worker.engine.batching.fairness import Bid
from worker.engine.interface import (
    ChatPrompt,
    Delta,
    Echoed,
    Event,
    Prompt,
    PromptProgress,
    Request,
    SequenceFigures,
    SequenceState,
    Source,
    TokenLogprob,
)
from worker.engine.sampling.stop_strings import StopScanner

TOKEN = re.compile(r"\s*\S+|\s+")


class ScriptedSequence:
    """Each step adds a word, or computes a slice of the prompt first where its progress is requested."""

    def __init__(self, source: Source, choice: int, request: Request, prompt: Sequence[str], script: Json) -> None:
        """`prompt`: its words. `script`: as it applies to this request."""
        self.source = source
        self.request = request
        self.submitted = time.monotonic()
        self.predicted = 0
        self.ended = False
        self._choice = choice
        self._prompt_tokens = len(prompt)
        self._echo = prompt if request.echo else ()
        self._slices = iter(_slices(len(prompt), script) if request.prompt_progress else [])
        self._words = _scripted_words(choice, request, script)
        self._drafted, self._accepted = script.get("draft_tokens", (0, 0))
        self._stop = StopScanner(request.stop)
        self._first_token = 0.0
        self._reasoning_tokens = 0
        self._has_calls = False

    def bid(self, now: float) -> Bid:
        return Bid(self.request.priority, now - self.submitted, self.request.fairness_key)

    def figures(self, state: SequenceState, now: float) -> SequenceFigures:
        return SequenceFigures(
            request_id=self.request.request_id,
            choice=self._choice,
            state=state,
            priority=self.request.priority,
            prompt_tokens=self._prompt_tokens,
            done_tokens=0 if state is SequenceState.WAITING else self._prompt_tokens,
            cached_tokens=0,
            predicted_tokens=self.predicted,
            age_seconds=now - self.submitted,
        )

    def step(self) -> list[Event]:
        """The events of the next step; sets `ended` with the last."""
        if (done := next(self._slices, None)) is not None:
            return [PromptProgress(self._prompt_tokens, 0, done)]
        events: list[Event] = []
        if self._echo:
            events.append(self._echoed())
            self._echo = ()
        if self.request.echo is Echo.ALONE:
            self._finish(events, StopReason.MAX_PREDICTED_TOKENS_REACHED, Delta(self._choice, "", 0))
        elif (word := next(self._words, None)) is None:
            reason = StopReason.TOOL_CALLS if self._has_calls else StopReason.EOS_FOUND
            self._finish(events, reason, Delta(self._choice, self._stop.flush(), 0))
        else:
            self._add(events, word)
        return events

    def _add(self, events: list[Event], word: str | Delta) -> None:
        self.predicted += 1
        self._first_token = self._first_token or time.monotonic()
        if isinstance(word, Delta):
            delta = self._part(events, word)
        else:
            delta = Delta(self._choice, self._stop.push(word), 1, _logprobs(word, self.request.logprobs))
        if self._stop.found is not None:
            self._finish(events, StopReason.STOP_STRING_FOUND, delta)
        elif self.predicted == self.request.sampling.max_tokens:
            if isinstance(word, str):
                delta = replace(delta, text=delta.text + self._stop.flush())
            self._finish(events, StopReason.MAX_PREDICTED_TOKENS_REACHED, delta)
        else:
            events.append(delta)

    def _part(self, events: list[Event], delta: Delta) -> Delta:
        """Reasoning or a tool call, to which stop strings do not apply. Text that was held back precedes a call."""
        self._reasoning_tokens += bool(delta.reasoning)
        self._has_calls = self._has_calls or bool(delta.tool_calls)
        if delta.tool_calls and (held := self._stop.flush()):
            events.append(Delta(self._choice, held, 0))
        return delta

    def _finish(self, events: list[Event], reason: StopReason, last: Delta) -> None:
        self.ended = True
        if last.text or last.tokens:
            events.append(last)
        events.append(Finished(self._choice, reason, self._stop.found, self._statistics()))

    def _echoed(self) -> Echoed:
        rated = [rating for word in self._echo for rating in _logprobs(word, self.request.logprobs)]
        if rated:
            rated[0] = replace(rated[0], logprob=None, top=())
        return Echoed(self._choice, "".join(self._echo), rated)

    def _statistics(self) -> Statistics:
        now = time.monotonic()
        first = self._first_token or now
        generation = now - first
        return Statistics(
            prompt_tokens=self._prompt_tokens,
            predicted_tokens=self.predicted,
            time_to_first_token_seconds=first - self.submitted,
            generation_seconds=generation,
            tokens_per_second=(self.predicted - 1) / generation if generation > 0 and self.predicted > 1 else 0.0,
            draft_tokens=self._drafted,
            accepted_draft_tokens=self._accepted,
            reasoning_tokens=self._reasoning_tokens,
        )


def token_id(word: str) -> int:
    return sum(word.encode())


def _slices(prompt_tokens: int, script: Json) -> list[int]:
    """Ends of the prompt's slices."""
    length = script.get("slice_tokens", 2)
    return [*range(length, prompt_tokens, length), prompt_tokens]


def content_text(message: Json) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def continued_text(prompt: Prompt) -> str:
    """Of a last message that is continued; "" for none."""
    if not isinstance(prompt, ChatPrompt) or prompt.end is not PromptEnd.CONTINUED_MESSAGE:
        return ""
    return content_text(prompt.messages[-1])


def _scripted_words(choice: int, request: Request, script: Json) -> Iterator[str | Delta]:
    """The words of the reasoning within its budget, then of the answer, and the tool calls."""
    continued = continued_text(request.prompt)
    budget, words = request.sampling.reasoning_budget, TOKEN.findall("" if continued else script.get("reasoning", ""))
    for word in words[: None if budget == UNLIMITED else budget]:
        yield Delta(choice, "", 1, reasoning=word)
    yield from TOKEN.findall(script["text"].removeprefix(continued))
    if isinstance(request.prompt, ChatPrompt) and request.prompt.tools is not None:
        for number, call in enumerate(script.get("tool_calls", [])):
            begun = ToolCallPiece(number, f"call_{choice}{number}", call["name"])
            yield Delta(choice, "", 1, tool_calls=[begun])
            for word in TOKEN.findall(call["arguments"]):
                yield Delta(choice, "", 1, tool_calls=[ToolCallPiece(number, arguments=word)])


def _logprobs(word: str, top: int | None) -> tuple[TokenLogprob, ...]:
    """The word is the most likely one; each further alternative is half a nat less likely."""
    if top is None:
        return ()
    words = [word, *(f" other{number}" for number in range(1, top))][:top]
    likeliest = [_logprob(each, -0.5 * (number + 1)) for number, each in enumerate(words)]
    return (_logprob(word, -0.5, likeliest),)


def _logprob(word: str, logprob: float, top: Sequence[TokenLogprob] = ()) -> TokenLogprob:
    return TokenLogprob(token_id(word), word.encode(), logprob, top)
