"""The reasoning in a completion: the texts around it, and how many of the tokens it has."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from worker.output.completion_parser import find_mark


@dataclass(frozen=True, slots=True)
class ReasoningSection:
    """`closing`: ends the reasoning, and leads to what follows it.

    `ends`: the texts that may end it. `others`: the headers of other messages, which may stand in place of `start`.
    """

    start: str
    closing: str
    ends: tuple[str, ...]
    others: tuple[str, ...] = ()


class ReasoningCounter:
    """Counts the tokens between the marks, by the text that each adds.

    Tokens that may belong to the end mark count until it is certain that they do.
    """

    def __init__(self, ends: Sequence[str], *, inside: bool) -> None:
        """`ends`: the texts that may end the reasoning. `inside`: the prompt has begun it."""
        self.inside = inside  # the next token is reasoning, unless it ends that
        self.tokens = 0
        self._ends = tuple(ends)
        self._begun = ""  # what is written of an end mark
        self._lengths: deque[int] = deque()  # in characters, of the tokens that are no more than a part of it

    def written_of(self, closing: str) -> int:
        """How many characters of this text are written, which ends the reasoning."""
        return len(self._begun) if closing.startswith(self._begun) else 0

    def add(self, text: str, *, inside: bool) -> None:
        """A token that adds this text. `inside`: whether the text after it is reasoning."""
        if self.inside and inside:
            self._add_inside(text)
        elif self.inside:
            self.tokens -= len(self._lengths)
            self._begun = ""
            self._lengths.clear()
        self.inside = inside

    def _add_inside(self, text: str) -> None:
        self.tokens += 1
        read = self._begun + text
        self._begun = read[find_mark(read, self._ends)[2] :]
        self._lengths.append(len(text))
        while sum(self._lengths) > len(self._begun):
            self._lengths.popleft()
