"""Shortens a prompt that is longer than its room in the context, by the request's policy. Pure.

The policies and their names are LM Studio's:

    stopAtLimit     drops nothing: the prompt is rejected
    truncateMiddle  drops the middle: the beginning and the end stay
    rollingWindow   drops the beginning: the end stays

Of a chat whole exchanges are dropped, so that the template renders the rest correctly:

    system | user assistant | user assistant | user assistant | user
             '--------- rollingWindow, from here on --------'
                              '-- truncateMiddle, from here -'
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from atelier.errors import ContextLengthExceeded
from atelier.generation_types import NOTHING_DROPPED, Dropped
from atelier.json_types import Json
from worker.engine.chat_images import image_range
from worker.engine.interface import ChatPrompt, InfillPrompt, Prompt

ANSWER_SHARE = 8  # the part of the context, one in so many tokens, that is left for an answer without max_tokens
LEAST_ROOM = 16  # tokens: a prompt that is cut to fewer is meaningless

T = TypeVar("T")
Tokenize = Callable[[Prompt], list[int]]


@dataclass(frozen=True, slots=True)
class Gap:
    """The messages from `start` up to but not including `end`."""

    start: int
    end: int

    def without(self, messages: Sequence[Json]) -> list[Json]:
        return [*messages[: self.start], *messages[self.end :]]

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt's tokens, and what was dropped from it."""

    tokens: list[int]
    dropped: Dropped = NOTHING_DROPPED


def prompt_rooms(context_length: int, max_tokens: int | None) -> list[int]:
    """Tokens that a prompt may have, the preferred number first; below 1 if there is no room for one.

    An answer without max_tokens has its share of the context. Where that leaves too little for the prompt, any room
    will do: a policy must not reject what would be answered without one.
    """
    if max_tokens is not None:
        return [context_length - max_tokens]
    return [context_length - context_length // ANSWER_SHARE, context_length - 1]


def fit(prompt: Prompt, rooms: Sequence[int], *, middle: bool, bos: int, tokenize: Tokenize) -> Fitted:
    """The prompt, shortened to the first of the rooms that is possible. Raises ContextLengthExceeded if none is.

    `middle`: drop the middle rather than the beginning. `tokenize` raises ContextLengthExceeded for a prompt that is
    too long to be tokenised.
    """
    *better, last = rooms
    for room in better:
        with suppress(ContextLengthExceeded):
            return _Fitting(room, middle, bos, tokenize).fit(prompt)
    return _Fitting(last, middle, bos, tokenize).fit(prompt)


class _Fitting:
    """Shortens a prompt to one room."""

    def __init__(self, room: int, middle: bool, bos: int, tokenize: Tokenize) -> None:
        self._room = room
        self._middle = middle
        self._bos = bos
        self._tokenize = tokenize

    def fit(self, prompt: Prompt) -> Fitted:
        """Raises ContextLengthExceeded if the prompt does not fit after all that may be dropped."""
        if (whole := self._within_room(prompt)) is not None:
            return Fitted(whole)
        if self._room < LEAST_ROOM:
            raise ContextLengthExceeded("max_tokens leaves no room for a prompt: lower it.", param="max_tokens")
        if isinstance(prompt, InfillPrompt):
            raise ContextLengthExceeded("A prompt with a suffix is never shortened: shorten it.", param="prompt")
        return self._fit_chat(prompt) if isinstance(prompt, ChatPrompt) else self._cut(prompt)

    def _fit_chat(self, chat: ChatPrompt) -> Fitted:
        possible = gaps(chat.messages, middle=self._middle)
        found = least_that_fits(possible, lambda gap: self._within_room(_without(chat, gap)))
        if found is not None:
            gap, tokens = found
            return Fitted(tokens, Dropped(messages=len(gap)))
        if not self._middle:
            raise ContextLengthExceeded(
                "The messages that have to stay, the system's and all from the user's last one on, have more than "
                f"{self._room} tokens: shorten them, or set context_overflow to truncateMiddle.",
                param="messages",
            )
        if not possible:
            return self._cut(chat)
        rest = self._cut(_without(chat, possible[-1]))
        return Fitted(rest.tokens, replace(rest.dropped, messages=len(possible[-1])))

    def _cut(self, prompt: Prompt) -> Fitted:
        tokens = self._tokenize(prompt)
        if min(tokens) < 0:
            raise ContextLengthExceeded(
                f"The messages that have to stay have more than {self._room} tokens, and messages with images are "
                "never cut: shorten them, or send fewer images.",
                param="messages",
            )
        kept = cut_tokens(tokens, self._room, middle=self._middle, mark=int(tokens[0] == self._bos))
        return Fitted(kept, Dropped(tokens=len(tokens) - len(kept)))

    def _within_room(self, prompt: Prompt) -> list[int] | None:
        try:
            tokens = self._tokenize(prompt)
        except ContextLengthExceeded:
            return None
        return tokens if len(tokens) <= self._room else None


def cut_tokens(tokens: Sequence[int], room: int, *, middle: bool, mark: int = 0) -> list[int]:
    """As many of the tokens as there is room for. The first `mark` stay: the model expects them at the beginning."""
    if len(tokens) <= room:
        return list(tokens)
    head = max(mark, room // 2) if middle else mark
    return [*tokens[:head], *tokens[len(tokens) - (room - head) :]]


def gaps(messages: Sequence[Json], *, middle: bool) -> list[Gap]:
    """What may be dropped from a chat, the least first.

    After a gap comes a message of the user, the last one at the latest. The system's messages at the beginning stay,
    and for `middle` so does the first exchange after them.
    """
    start = next((at for at, message in enumerate(messages) if message.get("role") != "system"), len(messages))
    borders = [at for at in range(start + 1, len(messages)) if messages[at].get("role") == "user"]
    if middle and borders:
        start = borders.pop(0)
    return [Gap(start, end) for end in borders]


def least_that_fits(found: Sequence[Gap], attempt: Callable[[Gap], T | None]) -> tuple[Gap, T] | None:
    """The smallest gap for which the attempt returns a result, and the result. A larger gap leaves more room.

    By bisection: an attempt renders and tokenises a chat.
    """
    best: tuple[Gap, T] | None = None
    low, high = 0, len(found)
    while low < high:
        at = (low + high) // 2
        if (result := attempt(found[at])) is None:
            low = at + 1
        else:
            best, high = (found[at], result), at
    return best


def _without(chat: ChatPrompt, gap: Gap) -> ChatPrompt:
    """The chat without the messages of the gap and their images."""
    first, end = image_range(chat.messages, gap.start, gap.end)
    images = [*chat.images[:first], *chat.images[end:]]
    return replace(chat, messages=gap.without(chat.messages), images=images)
