"""What is left out of a prompt that is longer than its room in the context. Pure decisions.

The policies are LM Studio's, by its names:

    stopAtLimit     nothing: such a prompt is refused
    truncateMiddle  the middle: its beginning and its end stay
    rollingWindow   the beginning: its end stays

Of a chat, whole exchanges are left out, so that what the template makes of the rest is well formed:

    system | user assistant | user assistant | user assistant | user
             '--------- rollingWindow, from here on --------'
                              '-- truncateMiddle, from here -'
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

ANSWER_SHARE = 8  # of the context, the part that is left for an answer without max_tokens

Message = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gap:
    """The messages from `start` up to `end`, which is not one of them."""

    start: int
    end: int

    def without(self, messages: Sequence[Message]) -> list[Message]:
        return [*messages[: self.start], *messages[self.end :]]

    def __len__(self) -> int:
        return self.end - self.start


def prompt_rooms(context_length: int, max_tokens: int | None) -> list[int]:
    """Tokens that a prompt may have, the best first; not above 0 if there is no room for one.

    An answer without max_tokens has its share of the context, or if that cannot be had, any room at all:
    what would be answered without a policy is never refused with one.
    """
    if max_tokens is not None:
        return [context_length - max_tokens]
    return [context_length - context_length // ANSWER_SHARE, context_length - 1]


def cut_tokens(tokens: Sequence[int], room: int, *, middle: bool, mark: int = 0) -> list[int]:
    """As many of the tokens as there is room for. The first `mark` stay: the model expects them at the beginning."""
    if len(tokens) <= room:
        return list(tokens)
    head = max(mark, room // 2) if middle else mark
    return [*tokens[:head], *tokens[len(tokens) - (room - head) :]]


def gaps(messages: Sequence[Message], *, middle: bool) -> list[Gap]:
    """What may be left out of a chat, the least first.

    What remains goes on with a message of the user, the last one at the latest; the system's messages
    at the beginning stay, and for `middle` so does the first exchange after them.
    """
    start = next((at for at, message in enumerate(messages) if message.get("role") != "system"), len(messages))
    borders = [at for at in range(start + 1, len(messages)) if messages[at].get("role") == "user"]
    if middle and borders:
        start = borders.pop(0)
    return [Gap(start, end) for end in borders]


def least_that_fits(found: Sequence[Gap], attempt: Callable[[Gap], T | None]) -> tuple[Gap, T] | None:
    """The smallest gap for which the attempt gives something, and what; a larger one leaves more room.

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
