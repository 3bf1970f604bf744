"""The text of a completion as its readers see it: it arrives in pieces, and they wait for more.

A reader is a generator. It yields the parts that are certain, and None where it needs more text; its return value
is what it read. So readers are written as if all the text were there, and yield the same parts wherever the text
is cut.
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
    """The text does not continue in the form in which it began."""


class CompletionSource:
    """`text` begins after what was committed. Readers stand at `at`, and may return to the beginning."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.at = 0
        self.ended = False
        self.commits = 0

    def commit(self) -> None:
        """Drop what was read: it was emitted, or is not to be."""
        self.text = self.text[self.at :]
        self.at = 0
        self.commits += 1

    def more(self) -> Reading[None]:
        """Wait for more text. Raises Malformed at the end of the completion."""
        if self.ended:
            raise Malformed
        yield None

    def skip_space(self) -> Reading[None]:
        """Skip white space, if there is any."""
        while True:
            self.at = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # it always matches
            if self.at < len(self.text) or self.ended:
                return
            yield None

    def take(self, *marks: str) -> Reading[str]:
        """Skip the longest of the marks that the text continues with, and return it; "" if there is none."""
        while True:
            found = max((mark for mark in marks if self.text.startswith(mark, self.at)), key=len, default="")
            rest = self.text[self.at :]
            undecided = (mark for mark in marks if len(mark) > len(found) and mark.startswith(rest))
            if self.ended or not any(undecided):
                self.at += len(found)
                return found
            yield None

    def take_one(self, *marks: str) -> Reading[str]:
        """Skip the longest of the marks that the text continues with, and return it. Raises Malformed without one."""
        if not (found := (yield from self.take(*marks))):
            raise Malformed
        return found

    def expect(self, mark: str) -> Reading[None]:
        """Skip this mark, which may be empty. Raises Malformed if the text continues otherwise."""
        if mark:
            yield from self.take_one(mark)

    def expect_all(self, marks: Iterable[str]) -> Reading[None]:
        """Skip these marks, each with any white space before it. Raises Malformed if the text continues otherwise."""
        for mark in marks:
            yield from self.skip_space()
            yield from self.expect(mark)

    def peek(self) -> Reading[str]:
        """The next character, which is not skipped."""
        while self.at == len(self.text):
            yield from self.more()
        return self.text[self.at]

    def until(self, mark: str, longest: int | None = None) -> Reading[str]:
        """The text before the mark, of at most `longest` characters. Skips the mark too."""
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
        """A tool's name: the characters that names may have, up to one that they may not."""
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
        """A whole JSON value, of at most `longest` characters, as text."""
        value, read = JsonText(), ""
        while True:
            piece, self.at = value.take(self.text, self.at)
            read += piece
            if value.broken or (longest is not None and len(read) > longest):
                raise Malformed
            if value.complete:
                return read
            yield from self.more()
