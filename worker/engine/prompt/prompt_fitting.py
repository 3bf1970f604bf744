"""Makes a prompt fit into its room, as the request's policy wants it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from atelier.errors import ContextLengthExceeded
from worker.engine.interface import NOTHING, ChatPrompt, Dropped, InfillPrompt, Prompt
from worker.engine.prompt.context_overflow import Gap, cut_tokens, gaps, least_that_fits
from worker.engine.prompt.message_images import gap_in_images

Tokenize = Callable[[Prompt], list[int]]

LEAST_ROOM = 16  # tokens: a prompt that is cut to less says nothing


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt's tokens, and what was left out of it."""

    tokens: list[int]
    dropped: Dropped = NOTHING


def fit(prompt: Prompt, rooms: Sequence[int], *, middle: bool, bos: int, tokenize: Tokenize) -> Fitted:
    """The prompt in the first of the rooms that it can be made to fit into; ContextLengthExceeded if there is none.

    `middle`: leave out the middle rather than the beginning. `tokenize` raises ContextLengthExceeded
    for what is too long to be tokenised at all.
    """
    *better, last = rooms
    for room in better:
        with suppress(ContextLengthExceeded):
            return _Fitting(room, middle, bos, tokenize).fit(prompt)
    return _Fitting(last, middle, bos, tokenize).fit(prompt)


class _Fitting:
    """Into one room."""

    def __init__(self, room: int, middle: bool, bos: int, tokenize: Tokenize) -> None:
        self._room = room
        self._middle = middle
        self._bos = bos
        self._tokenize = tokenize

    def fit(self, prompt: Prompt) -> Fitted:
        """The prompt, whole if there is room; ContextLengthExceeded if nothing that may be left out makes some."""
        if (whole := self._within_room(prompt)) is not None:
            return Fitted(whole)
        if self._room < LEAST_ROOM:
            raise ContextLengthExceeded("max_tokens leaves no room for a prompt: lower it.", param="max_tokens")
        if isinstance(prompt, InfillPrompt):
            raise ContextLengthExceeded("A prompt with a suffix is not cut: shorten it.", param="prompt")
        return self._fit_chat(prompt) if isinstance(prompt, ChatPrompt) else self._cut(prompt)

    def _fit_chat(self, chat: ChatPrompt) -> Fitted:
        possible = gaps(chat.messages, middle=self._middle)
        found = least_that_fits(possible, lambda gap: self._within_room(_without(chat, gap)))
        if found is not None:
            gap, tokens = found
            return Fitted(tokens, Dropped(messages=len(gap)))
        if not self._middle:
            raise ContextLengthExceeded(
                f"What stays of the chat, the system's messages and all from the user's last one on, has more than "
                f"{self._room} tokens: shorten it, or set context_overflow to truncateMiddle.",
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
                f"What stays of the chat has more than {self._room} tokens, and a message with images is not cut: "
                "shorten it, or send fewer images.",
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


def _without(chat: ChatPrompt, gap: Gap) -> ChatPrompt:
    """The messages of the gap go with their images."""
    first, end = gap_in_images(chat.messages, gap.start, gap.end)
    images = [*chat.images[:first], *chat.images[end:]]
    return replace(chat, messages=gap.without(chat.messages), images=images)
