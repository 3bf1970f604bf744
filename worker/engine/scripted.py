"""An engine that follows a script: deterministic words, with delays and failures on demand.

For tests of everything around the engine, and for measuring the gateway alone. The script
(`LaunchSpec.script`) understands:

    text                reply; by default the last user message comes back, each image in it as [image PNG 10x8]
    blind               true: images are refused
    reasoning           thought before the reply
    tool_calls          [{name, arguments}, ...] after the reply to a chat with tools; arguments as a string
    turns               [{text, reasoning, tool_calls}, ...]: of each request in turn, the last for all that follow;
                        what a turn is silent about is as above
    unenforced          keywords that every call is told are not enforced
    dropped             [messages, tokens] that every call is told were left out of its prompt
    slice_tokens        of a prompt whose progress is wanted; 2 by default
    draft_tokens        [guessed, right], in every choice's statistics
    refuse_inputs       message of the error that answers Embed and Rerank
    step_seconds        pause of each step; 0 yields to the event loop
    hold                true: no step is made until `release()`, nor an Embed or Rerank answered
    load_seconds        how long the load takes
    load_hold           true: the load waits for `release()`
    load_error          the load fails with this message
    crash_on_load       the process exits in the load
    crash_after_tokens  the process exits after this many tokens
    hang_after_tokens   no step is made any more after this many tokens
"""

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from atelier.errors import ContextLengthExceeded, Draining, InvalidRequest, LoadFailed
from atelier.launch import LaunchSpec
from atelier.submission import Echo, ToolCallPiece
from worker.engine.batching.fairness import Bid, next_in_turn
from worker.engine.chat_images import decode_picture, with_images_written
from worker.engine.interface import (
    Accepted,
    ChatPrompt,
    Delta,
    Description,
    Dropped,
    Echoed,
    Emitted,
    Failed,
    Figures,
    Finished,
    InfillPrompt,
    Prompt,
    PromptProgress,
    Publish,
    Request,
    SequenceFigures,
    SequenceState,
    Source,
    Statistics,
    StopReason,
    TokenLogprob,
)
from worker.engine.sampling.stop_strings import StopScanner

CRASH_EXIT_CODE = 3
TOKEN = re.compile(r"\s*\S+|\s+")
DIMENSIONS = 4


@dataclass(slots=True)
class _Choice:
    source: Source
    index: int
    request: Request
    prompt_tokens: int
    echo: list[str]  # words of the prompt, where it is told
    slices: Iterator[int]  # ends of the prompt's slices, where its progress is wanted
    words: Iterator[str | Delta]
    scanner: StopScanner
    submitted: float
    first_token: float = 0.0
    predicted: int = 0
    reasoned: int = 0  # tokens of these that are reasoning
    called: bool = False  # a tool

    def bid(self, now: float) -> Bid:
        return Bid(self.request.priority, now - self.submitted, self.request.fairness_key)

    def figures(self, state: SequenceState, now: float) -> SequenceFigures:
        return SequenceFigures(
            request_id=self.request.request_id,
            choice=self.index,
            state=state,
            priority=self.request.priority,
            prompt_tokens=self.prompt_tokens,
            done_tokens=0 if state is SequenceState.WAITING else self.prompt_tokens,
            cached_tokens=0,
            predicted_tokens=self.predicted,
            age_seconds=now - self.submitted,
        )


@dataclass(slots=True)
class _Step:
    emitted: list[Emitted] = field(default_factory=list)
    ended: list[_Choice] = field(default_factory=list)


class ScriptedEngine:
    """One task makes the steps; everything happens on the event loop."""

    def __init__(self, spec: LaunchSpec, publish: Publish) -> None:
        self._load_settings = spec.load
        self._script = spec.script
        self._publish = publish
        self._running: list[_Choice] = []
        self._waiting: list[_Choice] = []
        self._work = asyncio.Event()
        self._released = asyncio.Event()
        self._steps = 0
        self._turns = 0
        self._tokens = 0
        self._reading = 0  # calls with one answer that `hold` keeps
        self._task: asyncio.Task[None] | None = None

    async def load(self, on_progress: Callable[[float], None]) -> Description:
        if self._script.get("load_hold"):
            await self._released.wait()
        for quarter in range(1, 5):
            await asyncio.sleep(self._script.get("load_seconds", 0) / 4)
            on_progress(quarter / 4)
        if self._script.get("crash_on_load"):
            os._exit(CRASH_EXIT_CODE)
        if message := self._script.get("load_error"):
            raise LoadFailed(message)
        if not self._script.get("hold"):
            self._released.set()
        self._task = asyncio.create_task(self._make_steps())
        load = self._load_settings
        return Description(
            "scripted",
            "1",
            load.context_length,
            load.parallel,
            can_embed=True,
            can_rerank=True,
            can_see=not self._script.get("blind"),
            embedding_length=DIMENSIONS,
        )

    def release(self) -> None:
        """Let a script with `hold` or `load_hold` go on."""
        self._released.set()

    def submit(self, source: Source, request: Request) -> None:
        try:
            prompt = self._look_at(request.prompt)
        except InvalidRequest as refusal:
            self._publish([(source, Failed(refusal))])
            return
        request = replace(request, prompt=prompt)
        text = prompt_text(prompt)
        prompt_tokens = len(TOKEN.findall(text))
        if prompt_tokens >= self._load_settings.context_length:
            error = ContextLengthExceeded(
                f"The prompt has {prompt_tokens} tokens and the context {self._load_settings.context_length}.",
                param="messages",
            )
            self._publish([(source, Failed(error))])
            return
        messages, tokens = self._script.get("dropped", (0, 0))
        accepted = Accepted(prompt_tokens, self._script.get("unenforced", ()), Dropped(tokens, messages))
        self._publish([(source, accepted)])
        turn = self._next_turn()
        reply = turn.get("text", text)
        for index in range(request.choices):
            words = self._words(index, reply, request.prompt, turn)
            scanner = StopScanner(request.stop)
            slices = iter(self._slices(prompt_tokens) if request.prompt_progress else [])
            echo = TOKEN.findall(text) if request.echo else []
            choice = _Choice(source, index, request, prompt_tokens, echo, slices, words, scanner, time.monotonic())
            self._waiting.append(choice)
        self._work.set()

    def _next_turn(self) -> Mapping[str, Any]:
        """The script, as it is for this request."""
        turns = self._script.get("turns") or [{}]
        turn = turns[min(self._turns, len(turns) - 1)]
        self._turns += 1
        return {**self._script, **turn}

    def _look_at(self, prompt: Prompt) -> Prompt:
        """The prompt with its images in words; InvalidRequest."""
        if not isinstance(prompt, ChatPrompt) or not prompt.images:
            return prompt
        if self._script.get("blind"):
            raise InvalidRequest("This model sees no images.", param="messages")
        pictures = [decode_picture(encoded, number) for number, encoded in enumerate(prompt.images, 1)]
        words = [f"[image {each.format} {each.width}x{each.height}]" for each in pictures]
        return replace(prompt, messages=with_images_written(prompt.messages, words.__getitem__), images=())

    def _words(self, index: int, reply: str, prompt: Prompt, turn: Mapping[str, Any]) -> Iterator[str | Delta]:
        for word in TOKEN.findall(turn.get("reasoning", "")):
            yield Delta(index, "", 1, reasoning=word)
        yield from TOKEN.findall(reply)
        if isinstance(prompt, ChatPrompt) and prompt.tools is not None:
            for number, call in enumerate(turn.get("tool_calls", [])):
                begun = ToolCallPiece(number, f"call_{index}{number}", call["name"])
                yield Delta(index, "", 1, tool_calls=[begun])
                for word in TOKEN.findall(call["arguments"]):
                    yield Delta(index, "", 1, tool_calls=[ToolCallPiece(number, arguments=word)])

    def _slices(self, prompt_tokens: int) -> list[int]:
        length = self._script.get("slice_tokens", 2)
        return [*range(length, prompt_tokens, length), prompt_tokens]

    def cancel(self, source: Source) -> None:
        self._running = [choice for choice in self._running if choice.source != source]
        self._waiting = [choice for choice in self._waiting if choice.source != source]

    def figures(self) -> Figures:
        return Figures(len(self._running), len(self._waiting) + self._reading, self._steps)

    async def sequences(self) -> list[SequenceFigures]:
        """Without a prompt to compute: what runs decodes."""
        now = time.monotonic()
        running = [choice.figures(SequenceState.DECODE, now) for choice in self._running]
        return running + [choice.figures(SequenceState.WAITING, now) for choice in self._waiting]

    async def tokenize(
        self, prompt: ChatPrompt | str, add_special: bool, parse_special: bool = True
    ) -> list[tuple[int, bytes]]:
        begun = ["<s>"] if add_special and not isinstance(prompt, ChatPrompt) else []
        words = [*begun, *TOKEN.findall(prompt_text(self._look_at(prompt)))]
        return [(_token_id(word), word.encode()) for word in words]

    async def detokenize(self, tokens: list[int]) -> str:
        return prompt_text(tokens)

    async def render(self, chat: ChatPrompt) -> str:
        """A line for each tool and each message."""
        looked_at = self._look_at(chat)
        assert isinstance(looked_at, ChatPrompt)
        tools = [f"tool: {tool.name}" for tool in chat.tools.tools] if chat.tools else []
        arguments = [f"{name}: {value}" for name, value in chat.arguments.items()]
        messages = [f"{message.get('role')}: {_content(message)}" for message in looked_at.messages]
        return "\n".join([*tools, *arguments, *messages, "assistant:"])

    async def embed(
        self, inputs: list[str | list[int]], dimensions: int | None = None
    ) -> tuple[list[list[float]], int]:
        await self._read_inputs()
        if dimensions is not None and dimensions > DIMENSIONS:
            raise InvalidRequest(f"dimensions is between 1 and {DIMENSIONS} for this model.", param="dimensions")
        return [[1.0, 0.0, 0.0, 0.0][:dimensions] for _ in inputs], len(inputs)

    async def rerank(self, query: str, documents: list[str]) -> tuple[list[float], int]:
        """By the words that a document has in common with the query."""
        await self._read_inputs()
        words = set(TOKEN.findall(query))
        return [float(len(words & set(TOKEN.findall(document)))) for document in documents], len(documents)

    async def _read_inputs(self) -> None:
        self._reading += 1
        try:
            await self._released.wait()
        finally:
            self._reading -= 1
        if message := self._script.get("refuse_inputs"):
            raise InvalidRequest(message, param="model")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        left = {choice.source for choice in [*self._running, *self._waiting]}
        self._publish([(source, Failed(Draining("The model was unloaded."))) for source in left])
        self._running, self._waiting = [], []

    async def _make_steps(self) -> None:
        while True:
            await self._released.wait()
            self._fail_overdue()
            self._admit()
            if not self._running:
                self._work.clear()
                await self._work.wait()
                continue
            await asyncio.sleep(self._script.get("step_seconds", 0))
            self._step()

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._load_settings.parallel:
            now = time.monotonic()
            keys = [running.request.fairness_key for running in self._running]
            self._running.append(self._waiting.pop(next_in_turn([waiting.bid(now) for waiting in self._waiting], keys)))

    def _fail_overdue(self) -> None:
        now = time.monotonic()
        started = {choice.source for choice in self._running}
        for choice in {choice.source: choice for choice in [*self._running, *self._waiting]}.values():
            deadlines, age = choice.request.deadlines, now - choice.submitted
            if (error := deadlines.missed(age, started=choice.source in started)) is not None:
                self.cancel(choice.source)
                self._publish([(choice.source, Failed(error))])

    def _step(self) -> None:
        step = _Step()
        for choice in self._running:
            self._fail_on_demand()
            self._advance(choice, step)
        self._running = [choice for choice in self._running if choice not in step.ended]
        self._steps += 1
        self._publish(step.emitted)

    def _fail_on_demand(self) -> None:
        if self._tokens >= self._script.get("crash_after_tokens", float("inf")):
            os._exit(CRASH_EXIT_CODE)
        if self._tokens >= self._script.get("hang_after_tokens", float("inf")):
            self._released.clear()

    def _advance(self, choice: _Choice, step: _Step) -> None:
        if (done := next(choice.slices, None)) is not None:
            step.emitted.append((choice.source, PromptProgress(choice.prompt_tokens, 0, done)))
            return
        if choice.echo:
            step.emitted.append((choice.source, _echoed(choice)))
            choice.echo = []
        if choice.request.echo is Echo.ALONE:
            self._finish(choice, StopReason.MAX_PREDICTED_TOKENS_REACHED, Delta(choice.index, "", 0), step)
            return
        word = next(choice.words, None)
        if word is None:
            reason = StopReason.TOOL_CALLS if choice.called else StopReason.EOS_FOUND
            self._finish(choice, reason, Delta(choice.index, choice.scanner.flush(), 0), step)
            return
        choice.predicted += 1
        self._tokens += 1
        choice.first_token = choice.first_token or time.monotonic()
        if isinstance(word, Delta):
            self._tell(choice, word, step)
            return
        delta = Delta(choice.index, choice.scanner.push(word), 1, _logprobs(word, choice.request.logprobs))
        if choice.scanner.found is not None:
            self._finish(choice, StopReason.STOP_STRING_FOUND, delta, step)
        elif choice.predicted == choice.request.sampling.max_tokens:
            delta = replace(delta, text=delta.text + choice.scanner.flush())
            self._finish(choice, StopReason.MAX_PREDICTED_TOKENS_REACHED, delta, step)
        else:
            step.emitted.append((choice.source, delta))

    def _tell(self, choice: _Choice, delta: Delta, step: _Step) -> None:
        """A part that is no text: stop strings do not apply to it."""
        choice.reasoned += bool(delta.reasoning)
        choice.called = choice.called or bool(delta.tool_calls)
        if delta.tool_calls and (held := choice.scanner.flush()):
            step.emitted.append((choice.source, Delta(choice.index, held, 0)))
        if choice.predicted == choice.request.sampling.max_tokens:
            self._finish(choice, StopReason.MAX_PREDICTED_TOKENS_REACHED, delta, step)
        else:
            step.emitted.append((choice.source, delta))

    def _finish(self, choice: _Choice, reason: StopReason, last: Delta, step: _Step) -> None:
        if last.text or last.tokens:
            step.emitted.append((choice.source, last))
        statistics = _statistics(choice, *self._script.get("draft_tokens", (0, 0)))
        finished = Finished(choice.index, reason, choice.scanner.found, statistics)
        step.emitted.append((choice.source, finished))
        step.ended.append(choice)


def prompt_text(prompt: Prompt) -> str:
    """The words a scripted engine answers with: the last user message, or the prompt."""
    if isinstance(prompt, ChatPrompt):
        return next((_content(m) for m in reversed(prompt.messages) if m.get("role") == "user"), "")
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, InfillPrompt):
        return prompt.prefix
    return " ".join(str(token) for token in prompt)


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _echoed(choice: _Choice) -> Echoed:
    rated = [rating for word in choice.echo for rating in _logprobs(word, choice.request.logprobs)]
    if rated:
        rated[0] = replace(rated[0], logprob=None, top=())
    return Echoed(choice.index, "".join(choice.echo), rated)


def _logprobs(word: str, top: int | None) -> tuple[TokenLogprob, ...]:
    """The word is the likeliest of all; others are worth half a nat less each."""
    if top is None:
        return ()
    words = [word, *(f" other{number}" for number in range(1, top))][:top]
    likeliest = [_logprob(each, -0.5 * (number + 1)) for number, each in enumerate(words)]
    return (_logprob(word, -0.5, likeliest),)


def _logprob(word: str, logprob: float, top: Sequence[TokenLogprob] = ()) -> TokenLogprob:
    return TokenLogprob(_token_id(word), word.encode(), logprob, top)


def _token_id(word: str) -> int:
    return sum(word.encode())


def _statistics(choice: _Choice, guessed: int, right: int) -> Statistics:
    now = time.monotonic()
    first = choice.first_token or now
    generation = now - first
    rate = (choice.predicted - 1) / generation if generation > 0 and choice.predicted > 1 else 0.0
    waited = first - choice.submitted
    figures = (choice.prompt_tokens, 0, choice.predicted, 0.0, waited, generation, rate, guessed, right)
    return Statistics(*figures, reasoning_tokens=choice.reasoned)
