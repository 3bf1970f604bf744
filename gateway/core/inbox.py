"""One request's events between the worker's stream and the task that sends them to the client."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace

from atelier.generation_types import NOTHING_DROPPED, Dropped, Finished, ToolCallPiece
from gateway.core.events import Delta, Event, PromptProgress, Reasoning, TokenLogprob, ToolCallDelta

PARTS_KEPT = 256  # pieces of text of a choice before they become one string


class Inbox:
    """Filled by the worker's connection, emptied by the request's task, both on the event loop.

    `take` returns everything since the last time, with each choice's texts joined. A slow client therefore
    costs one string per choice, however many steps it lags behind.
    """

    def __init__(self, submissions: int) -> None:
        self._unaccepted = submissions
        self._accepted_at = 0.0  # of the last submission
        self._texts: dict[int, list[str]] = {}
        self._reasonings: dict[int, list[str]] = {}
        self._earlier: list[Event] = []  # events before the texts and reasonings that are being joined
        self._logprobs: dict[int, list[TokenLogprob]] = {}  # of choices that have texts
        self._progress: dict[int, PromptProgress] = {}
        self._computed: dict[int, int] = {}  # tokens of each prompt, by its first choice
        self._ends: list[Finished] = []
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.prompt_tokens = 0
        self.unenforced: tuple[str, ...] = ()  # keywords of the schema that the answer may violate
        self.dropped = NOTHING_DROPPED  # of all prompts together
        self.tokens = 0  # that the texts represent

    def accept(self, prompt_tokens: int, unenforced: Iterable[str] = (), dropped: Dropped = NOTHING_DROPPED) -> None:
        self.prompt_tokens += prompt_tokens
        self.dropped += dropped
        self.unenforced = tuple(dict.fromkeys((*self.unenforced, *unenforced)))
        self._unaccepted -= 1
        self._accepted_at = time.monotonic()
        self._wake()

    def add_progress(self, choice: int, prompt_tokens: int, cached_tokens: int, done_tokens: int) -> None:
        """Progress of a prompt's later choices, which repeats what the first one reported, is left out."""
        if done_tokens > self._computed.get(choice, 0):
            self._computed[choice] = done_tokens
            seconds = time.monotonic() - self._accepted_at
            self._progress[choice] = PromptProgress(choice, prompt_tokens, cached_tokens, done_tokens, seconds)
            self._wake()

    def add_text(self, choice: int, text: str, tokens: int) -> None:
        self.tokens += tokens
        if not text:  # a token in the middle of a code point
            return
        if self._reasonings:
            self._flush_reasoning(choice)
        _join(self._texts, choice, text)
        self._wake()

    def add_reasoning(self, choice: int, text: str) -> None:
        self._flush_text(choice)
        _join(self._reasonings, choice, text)
        self._wake()

    def add_tool_call(self, choice: int, piece: ToolCallPiece) -> None:
        self._flush_reasoning(choice)
        self._flush_text(choice)
        last = self._earlier[-1] if self._earlier else None
        if isinstance(last, ToolCallDelta) and last.choice == choice and last.piece.index == piece.index:
            piece = replace(last.piece, arguments=last.piece.arguments + piece.arguments)
            self._earlier.pop()
        self._earlier.append(ToolCallDelta(choice, piece))
        self._wake()

    def add_logprobs(self, choice: int, logprobs: list[TokenLogprob]) -> None:
        """Those of tokens whose text was added, or will be."""
        if logprobs:
            self._texts.setdefault(choice, [])
            self._logprobs.setdefault(choice, []).extend(logprobs)
            self._wake()

    def add_end(self, end: Finished) -> None:
        self._ends.append(end)
        self._wake()

    def fail(self, error: Exception) -> None:
        """`take` returns what is here already, then raises the error."""
        self._error = self._error or error
        self._wake()

    async def wait_accepted(self) -> None:
        """Return when every submission was accepted; raises the error of one that was rejected."""
        while self._unaccepted > 0:
            if self._error:
                raise self._error
            await self._wait()

    async def take(self) -> list[Event]:
        """At least one event, prompts' progress first. Raises the error that the inbox failed with."""
        while not (self._texts or self._ends or self._reasonings or self._earlier or self._progress):
            if self._error:
                raise self._error
            await self._wait()
        taken, self._earlier = self._earlier, []
        if self._reasonings:
            taken += [Reasoning(choice, "".join(parts)) for choice, parts in self._reasonings.items()]
            self._reasonings = {}
        texts, logprobs = self._texts, self._logprobs
        taken += [Delta(choice, "".join(parts), logprobs.pop(choice, ())) for choice, parts in texts.items()]
        taken += self._ends
        if self._progress:
            taken[:0] = self._progress.values()
            self._progress = {}
        self._texts, self._ends = {}, []
        return taken

    def _flush_reasoning(self, choice: int) -> None:
        """Something else follows: reasoning after it must not be joined with this."""
        if parts := self._reasonings.pop(choice, None):
            self._earlier.append(Reasoning(choice, "".join(parts)))

    def _flush_text(self, choice: int) -> None:
        if (parts := self._texts.pop(choice, None)) is not None:
            self._earlier.append(Delta(choice, "".join(parts), self._logprobs.pop(choice, ())))

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _join(texts: dict[int, list[str]], choice: int, text: str) -> None:
    parts = texts.setdefault(choice, [])
    parts.append(text)
    if len(parts) >= PARTS_KEPT:
        parts[:] = ["".join(parts)]
