"""The control tokens of a vocabulary, and where they are written out in a text. Pure."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

TAG = re.compile(r"<[|｜].*|<.*[|｜]>", re.DOTALL)
"""Tags with bars are marks, never words: older files declare some of them as words, such as Command R's."""

Pieces = Sequence[str | int]
"""A prompt as plain texts and, between them, the ids of control tokens. A text after a text continues it."""


@dataclass(frozen=True, slots=True)
class ControlToken:
    """`is_word`: the file declares it as a word, which llama.cpp recognises in every text."""

    id: int
    text: str
    is_word: bool = False
    strips_before: bool = False  # white space beside it is dropped
    strips_after: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A control token that is written out in a text, from `start` up to but not including `end`."""

    start: int
    end: int
    token: ControlToken


class ControlTokens:
    """Those of two characters and more: a single character cannot be split."""

    def __init__(self, tokens: Iterable[ControlToken]) -> None:
        self.by_text: Mapping[str, ControlToken] = {token.text: token for token in tokens if len(token.text) > 1}
        self.by_id: Mapping[int, ControlToken] = {token.id: token for token in self.by_text.values()}
        self.first_characters = frozenset(text[0] for text in self.by_text)
        ends: dict[str, set[tuple[int, str]]] = defaultdict(set)
        for text in self.by_text:
            ends[text[:2]].add((len(text), text[-1]))
        self._ends: Mapping[str, Collection[tuple[int, str]]] = dict(ends)  # by the first two characters

    def begins_like_one(self, text: str) -> bool:
        """Whether a control token begins with the text, or the text with a control token."""
        return text.startswith(tuple(self.by_text)) or any(token.startswith(text) for token in self.by_text)

    def find(self, text: str) -> list[Mark]:
        """The marks in the text, in their order. Of marks that overlap the longest counts, as in llama.cpp."""
        covered = bytearray(len(text))
        marks: list[Mark] = []
        for mark in sorted(self._candidates(text), key=lambda mark: (-len(mark.token.text.encode()), mark.start)):
            if not any(covered[mark.start : mark.end]):
                covered[mark.start : mark.end] = b"\1" * (mark.end - mark.start)
                marks.append(mark)
        return sorted(marks, key=lambda mark: mark.start)

    def _candidates(self, text: str) -> Iterator[Mark]:
        for found in self._first.finditer(text):
            start = found.start()
            for length, last in self._ends[text[start : start + 2]]:
                end = start + length
                if text[end - 1 : end] == last and (token := self.by_text.get(text[start:end])) is not None:
                    yield Mark(start, end, token)

    @cached_property
    def _first(self) -> re.Pattern[str]:
        """The first character of a token, before its second one."""
        seconds: dict[str, str] = defaultdict(str)
        for pair in self._ends:
            seconds[pair[0]] += pair[1]
        starts = (f"{re.escape(first)}(?=[{re.escape(each)}])" for first, each in seconds.items())
        return re.compile("|".join(starts) or "(?!)")

    def pieces(self, text: str) -> list[str | int]:
        """The text with its marks as ids."""
        pieces: list[str | int] = []
        end = 0
        for mark in self.find(text):
            pieces += [text[end : mark.start], mark.token.id]
            end = mark.end
        return [piece for piece in (*pieces, text[end:]) if piece != ""]

    def plain(self, text: str) -> list[str]:
        """A text in which nothing is a mark: cut within the words that llama.cpp would recognise nevertheless."""
        cuts = sorted({mark.start + 1 for mark in self._candidates(text) if mark.token.is_word})
        return [part for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True) if (part := text[start:end])]
