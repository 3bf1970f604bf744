"""The text of a completion as its readers see it: it comes in pieces, and they ask for more.

A reader is a generator. It yields parts that are certain, and None where it needs more text; what it
returns is what it read. So it is written as if all the text were there, and gives the same parts
wherever the text is cut.
"""

import re
from collections.abc import Generator, Iterable
from typing import TypeVar

from worker.output.completion_parts import Part
from worker.output.json_text import JsonText

LONGEST_NAME = 256  # characters of a tool's or a parameter's name
SPACE = re.compile(r"\s*")
NAME = re.compile(r"[\w./:-]*")

T = TypeVar("T")
Reading = Generator[Part | None, None, T]


class Malformed(Exception):
    """The text is not in the form that it began with."""


class Source:
    """`text` from what is told on; readers stand at `at`, and may go back to its beginning."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.at = 0
        self.ended = False
        self.commits = 0

    def commit(self) -> None:
        """What was read is told, or not worth telling."""
        self.text = self.text[self.at :]
        self.at = 0
        self.commits += 1

    def more(self) -> Reading[None]:
        if self.ended:
            raise Malformed
        yield None

    def space(self) -> Reading[None]:
        """Pass over white space, of which there may be none."""
        while True:
            self.at = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # it always matches
            if self.at < len(self.text) or self.ended:
                return
            yield None

    def starts(self, *marks: str) -> Reading[str]:
        """Pass over the longest of the marks that comes here, and return it; "" if none does."""
        while True:
            found = max((mark for mark in marks if self.text.startswith(mark, self.at)), key=len, default="")
            rest = self.text[self.at :]
            open_ones = (mark for mark in marks if len(mark) > len(found) and mark.startswith(rest))
            if self.ended or not any(open_ones):
                self.at += len(found)
                return found
            yield None

    def expect(self, mark: str) -> Reading[None]:
        """Pass over the mark, which must come here."""
        if mark and not (yield from self.starts(mark)):
            raise Malformed

    def expect_all(self, marks: Iterable[str]) -> Reading[None]:
        """Pass over the marks, with any white space before each."""
        for mark in marks:
            yield from self.space()
            yield from self.expect(mark)

    def peek(self) -> Reading[str]:
        """The next character."""
        while self.at == len(self.text):
            yield from self.more()
        return self.text[self.at]

    def until(self, mark: str, longest: int | None = None) -> Reading[str]:
        """The text before the mark, which is passed over."""
        start = seen = self.at
        while (end := self.text.find(mark, seen)) < 0:
            if longest is not None and len(self.text) - start > longest + len(mark):
                raise Malformed
            seen = max(start, len(self.text) - len(mark) + 1)
            yield from self.more()
        if longest is not None and end - start > longest:
            raise Malformed
        self.at = end + len(mark)
        return self.text[start:end]

    def name(self) -> Reading[str]:
        """A tool's name, as far as its characters go."""
        start = self.at
        while (end := NAME.match(self.text, start).end()) == len(self.text) and not self.ended:  # type: ignore[union-attr]
            if end - start > LONGEST_NAME:
                raise Malformed
            yield None
        if not 0 < end - start <= LONGEST_NAME:
            raise Malformed
        self.at = end
        return self.text[start:end]

    def json(self, longest: int | None = None) -> Reading[str]:
        """A JSON value, whole."""
        value, read = JsonText(), ""
        while True:
            piece, self.at = value.take(self.text, self.at)
            read += piece
            if value.broken or (longest is not None and len(read) > longest):
                raise Malformed
            if value.complete:
                return read
            yield from self.more()
