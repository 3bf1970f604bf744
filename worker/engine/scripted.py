"""An engine that follows a script: deterministic words, with delays and failures on demand.

For tests of everything around the engine, and for measuring the gateway alone. The script
(`LaunchSpec.script`) has these keys:

    text                the answer; by default the last user message, each image in it as [image PNG 10x8]. Where a
                        last message is continued that is the beginning of it, the rest
    blind               true: images are rejected
    reasoning           reasoning before the answer, of which a request's budget may leave only the first words
    tool_calls          [{name, arguments}, ...] after the answer to a chat with tools; arguments as a string
    turns               [{text, reasoning, tool_calls}, ...]: for each request in turn, the last for all that follow;
                        keys that a turn lacks are those above
    unenforced          keywords that every call reports as not enforced
    dropped             [messages, tokens] that every call reports as dropped from its prompt
    slice_tokens        of a prompt whose progress is requested; 2 by default
    draft_tokens        [proposed, accepted], in every choice's statistics
    refuse_inputs       message of the error that Embed and Rerank return
    step_seconds        pause of each step; 0 yields to the event loop
    hold                true: no step is made before `release()`, nor is an Embed or Rerank answered
    load_seconds        how long the load takes
    load_hold           true: the load waits for `release()`
    load_error          the load fails with this message
    crash_on_load       the process exits during the load
    crash_after_tokens  the process exits after this many tokens
    hang_after_tokens   no more steps are made after this many tokens
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace

from atelier.errors import ContextLengthExceeded, Draining, InvalidRequest, LoadFailed
from atelier.generation_types import Dropped
from atelier.json_types import Json
from atelier.launch import LaunchSpec
from atelier.prompt_end import PromptEnd
from worker.engine.batching.fairness import next_in_turn
from worker.engine.chat_images import decode_picture, with_images_written
from worker.engine.interface import (
    Accepted,
    ChatPrompt,
    Description,
    Emitted,
    Failed,
    Figures,
    InfillPrompt,
    Prompt,
    Publish,
    Request,
    SequenceFigures,
    SequenceState,
    Source,
)
from worker.engine.scripted_sequence import TOKEN, ScriptedSequence, content_text, continued_text, token_id

CRASH_EXIT_CODE = 3
DIMENSIONS = 4


class ScriptedEngine:
    """One task makes the steps; everything happens on the event loop."""

    def __init__(self, spec: LaunchSpec, publish: Publish) -> None:
        self._load_settings = spec.load
        self._script = spec.script
        self._publish = publish
        self._running: list[ScriptedSequence] = []
        self._waiting: list[ScriptedSequence] = []
        self._work = asyncio.Event()
        self._released = asyncio.Event()
        self._steps = 0
        self._turns = 0
        self._tokens = 0
        self._reading = 0  # Embed and Rerank calls that `hold` keeps
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
            speculation=load.speculation,
        )

    def release(self) -> None:
        """End the wait of `hold` or `load_hold`."""
        self._released.set()

    def submit(self, source: Source, request: Request) -> None:
        try:
            prompt = self._read_images(request.prompt)
            words = self._prompt_words(prompt)
        except InvalidRequest as error:
            self._publish([(source, Failed(error))])
            return
        messages, tokens = self._script.get("dropped", (0, 0))
        accepted = Accepted(len(words), self._script.get("unenforced", ()), Dropped(messages, tokens))
        self._publish([(source, accepted)])
        request, turn = replace(request, prompt=prompt), {"text": prompt_text(prompt), **self._next_turn()}
        for choice in range(request.choices):
            self._waiting.append(ScriptedSequence(source, choice, request, words, turn))
        self._work.set()

    def _prompt_words(self, prompt: Prompt) -> list[str]:
        """A word is a token. Raises ContextLengthExceeded."""
        words, length = _words(prompt), self._load_settings.context_length
        if len(words) >= length:
            raise ContextLengthExceeded(
                f"The prompt has {len(words)} tokens and the context {length}.", param="messages"
            )
        return words

    def _next_turn(self) -> Json:
        """The script for the next request."""
        turns = self._script.get("turns") or [{}]
        turn = turns[min(self._turns, len(turns) - 1)]
        self._turns += 1
        return {**self._script, **turn}

    def _read_images(self, prompt: Prompt) -> Prompt:
        """The prompt with its images in words. Raises InvalidRequest."""
        if not isinstance(prompt, ChatPrompt) or not prompt.images:
            return prompt
        if self._script.get("blind"):
            raise InvalidRequest("This model has no vision.", param="messages")
        pictures = [decode_picture(encoded, number) for number, encoded in enumerate(prompt.images, 1)]
        words = [f"[image {each.format} {each.width}x{each.height}]" for each in pictures]
        return replace(prompt, messages=with_images_written(prompt.messages, words.__getitem__), images=())

    def cancel(self, source: Source) -> None:
        self._running = [each for each in self._running if each.source != source]
        self._waiting = [each for each in self._waiting if each.source != source]

    def figures(self) -> Figures:
        return Figures(len(self._running), len(self._waiting) + self._reading, self._steps)

    async def release_cache(self, size: int) -> int:
        return 0

    async def sequences(self) -> list[SequenceFigures]:
        """Prompts take no time: a running sequence decodes."""
        now = time.monotonic()
        running = [each.figures(SequenceState.DECODE, now) for each in self._running]
        return running + [each.figures(SequenceState.WAITING, now) for each in self._waiting]

    async def tokenize(
        self, prompt: ChatPrompt | str, add_special: bool, parse_special: bool = True
    ) -> list[tuple[int, bytes]]:
        begun = ["<s>"] if add_special and not isinstance(prompt, ChatPrompt) else []
        words = [*begun, *_words(self._read_images(prompt))]
        return [(token_id(word), word.encode()) for word in words]

    async def detokenize(self, tokens: list[int]) -> str:
        return prompt_text(tokens)

    async def render(self, chat: ChatPrompt) -> str:
        """A line for each tool and each message."""
        readable = self._read_images(chat)
        assert isinstance(readable, ChatPrompt)
        tools = [f"tool: {tool.name}" for tool in chat.tools.tools] if chat.tools else []
        arguments = [f"{name}: {value}" for name, value in chat.arguments.items()]
        messages = [f"{message.get('role')}: {content_text(message)}" for message in readable.messages]
        begun = ["assistant:"] if chat.end is PromptEnd.NEW_MESSAGE else []
        return "\n".join([*tools, *arguments, *messages, *begun])

    async def embed(
        self, inputs: list[str | list[int]], dimensions: int | None = None
    ) -> tuple[list[list[float]], int]:
        await self._read_inputs()
        if dimensions is not None and dimensions > DIMENSIONS:
            raise InvalidRequest(f"dimensions is between 1 and {DIMENSIONS} for this model.", param="dimensions")
        return [[1.0, 0.0, 0.0, 0.0][:dimensions] for _ in inputs], len(inputs)

    async def rerank(self, query: str, documents: list[str]) -> tuple[list[float], int]:
        """The score is the number of words that a document shares with the query."""
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
        left = {each.source for each in [*self._running, *self._waiting]}
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
        started = {each.source for each in self._running}
        for sequence in {each.source: each for each in [*self._running, *self._waiting]}.values():
            deadlines, age = sequence.request.deadlines, now - sequence.submitted
            if (error := deadlines.missed(age, started=sequence.source in started)) is not None:
                self.cancel(sequence.source)
                self._publish([(sequence.source, Failed(error))])

    def _step(self) -> None:
        emitted: list[Emitted] = []
        for sequence in self._running:
            self._fail_on_demand()
            before = sequence.predicted
            emitted += [(sequence.source, event) for event in sequence.step()]
            self._tokens += sequence.predicted - before
        self._running = [sequence for sequence in self._running if not sequence.ended]
        self._steps += 1
        self._publish(emitted)

    def _fail_on_demand(self) -> None:
        if self._tokens >= self._script.get("crash_after_tokens", float("inf")):
            os._exit(CRASH_EXIT_CODE)
        if self._tokens >= self._script.get("hang_after_tokens", float("inf")):
            self._released.clear()


def _words(prompt: Prompt) -> list[str]:
    """Of the text that the engine repeats, and of a message that is continued."""
    return [*TOKEN.findall(prompt_text(prompt)), *TOKEN.findall(continued_text(prompt))]


def prompt_text(prompt: Prompt) -> str:
    """The text that the engine repeats: the last user message, or the prompt."""
    if isinstance(prompt, ChatPrompt):
        return next((content_text(m) for m in reversed(prompt.messages) if m.get("role") == "user"), "")
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, InfillPrompt):
        return prompt.prefix
    return " ".join(str(token) for token in prompt)
