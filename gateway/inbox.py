"""One request's events between the stream that brings them and the task that sends them on."""

import asyncio
import time
from collections.abc import Iterable

from gateway.events import NOTHING, Delta, Dropped, Event, Finished, PromptProgress, TokenLogprob

PARTS_KEPT = 256  # pieces of text of a choice before they become one string


class Inbox:
    """Filled by the worker's connection, emptied by the request's task, both on the event loop.

    Whoever takes gets everything since the last time, texts of a choice joined: a slow client
    costs one string for each choice, however many steps it lags behind.
    """

    def __init__(self, submissions: int) -> None:
        self._unaccepted = submissions
        self._accepted_at = 0.0  # of the last submission
        self._texts: dict[int, list[str]] = {}
        self._logprobs: dict[int, list[TokenLogprob]] = {}  # of choices that have texts
        self._progress: dict[int, PromptProgress] = {}
        self._computed: dict[int, int] = {}  # tokens of a prompt, by its first choice
        self._ends: list[Finished] = []
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.prompt_tokens = 0
        self.unenforced: tuple[str, ...] = ()  # keywords of the schema that the texts may violate
        self.dropped = NOTHING  # of all prompts together
        self.tokens = 0  # that the texts stand for

    def accept(self, prompt_tokens: int, unenforced: Iterable[str] = (), dropped: Dropped = NOTHING) -> None:
        self.prompt_tokens += prompt_tokens
        self.dropped += dropped
        self.unenforced = tuple(dict.fromkeys((*self.unenforced, *unenforced)))
        self._unaccepted -= 1
        self._accepted_at = time.monotonic()
        self._wake()

    def add_progress(self, choice: int, prompt_tokens: int, cached_tokens: int, done_tokens: int) -> None:
        """The prompt's other choices, which are computed after the first, tell nothing new."""
        if done_tokens > self._computed.get(choice, 0):
            self._computed[choice] = done_tokens
            seconds = time.monotonic() - self._accepted_at
            self._progress[choice] = PromptProgress(choice, prompt_tokens, cached_tokens, done_tokens, seconds)
            self._wake()

    def add_text(self, choice: int, text: str, tokens: int) -> None:
        self.tokens += tokens
        if not text:  # a token in the middle of a code point
            return
        parts = self._texts.setdefault(choice, [])
        parts.append(text)
        if len(parts) >= PARTS_KEPT:
            parts[:] = ["".join(parts)]
        self._wake()

    def add_logprobs(self, choice: int, logprobs: list[TokenLogprob]) -> None:
        """Of the tokens whose text was added, or will be."""
        if logprobs:
            self._texts.setdefault(choice, [])
            self._logprobs.setdefault(choice, []).extend(logprobs)
            self._wake()

    def add_end(self, end: Finished) -> None:
        self._ends.append(end)
        self._wake()

    def fail(self, error: Exception) -> None:
        """What is here can still be taken; then the taker gets the error."""
        self._error = self._error or error
        self._wake()

    async def wait_accepted(self) -> None:
        """Return when every submission was accepted, or raise what refused one."""
        while self._unaccepted > 0:
            if self._error:
                raise self._error
            await self._wait()

    async def take(self) -> list[Event]:
        """What has come, at least one event, prompts' progress first; raises what the inbox failed with."""
        while not self._texts and not self._ends and not self._progress:
            if self._error:
                raise self._error
            await self._wait()
        texts, logprobs = self._texts, self._logprobs
        taken: list[Event] = [
            Delta(choice, "".join(parts), logprobs.pop(choice, ())) for choice, parts in texts.items()
        ]
        taken += self._ends
        if self._progress:
            taken[:0] = self._progress.values()
            self._progress = {}
        self._texts, self._ends = {}, []
        return taken

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
