"""Tells the parts of one completion apart as it comes: the answer's text, reasoning, tool calls."""

import secrets
import string
from collections.abc import Callable, Sequence

from atelier.submission import Tools
from worker.output.call_readers import CallReader
from worker.output.completion_parts import Part, Reasoning, Text
from worker.output.format_types import Format, Messages, ReasoningMarks
from worker.output.message_headers import read_header
from worker.output.text_source import Malformed, Reading, Source

ALPHANUMERIC = string.ascii_letters + string.digits
OPENAI_ID = 24  # characters after "call_"


class CompletionParser:
    """White space beside reasoning and calls is dropped; any other text comes out as one of the parts.

    What is told stays told: where a call's arguments break off, they are left as they are, and the
    rest is text.
    """

    def __init__(
        self,
        format: Format | None = None,
        reasoning: ReasoningMarks | None = None,
        tools: Tools | None = None,
        opened: str = "",
        new_id: Callable[[], str] | None = None,
    ) -> None:
        """`opened`: a mark that the prompt ends with, so that the completion goes on after it."""
        source = self._source = Source(opened)
        self._lent = len(opened)  # characters that are no part of the completion
        self._format = format
        self._reasoning = reasoning
        self._one_at_a_time = tools is not None and tools.one_at_a_time
        make_id = new_id or (lambda: _random_id(format.id_length if format else 0))
        self._calls = CallReader(source, format, tools, make_id) if format and tools else None
        self._messages = format.messages if format else None
        self._ends = _ends(format, calls=self._calls is not None)
        self._ended = False
        self._bare = format.bare if format and self._calls else ""
        self._marks = self._begin_marks()
        self._parts = self._read()

    @property
    def complete(self) -> bool:
        """Whether nothing more is wanted: there is the one call that may be, or the model goes on to its result."""
        return self._ended or (self._one_at_a_time and self._calls is not None and self._calls.finished > 0)

    def push(self, text: str) -> Sequence[Part]:
        self._source.text += text
        return self._certain() if text else []

    def flush(self) -> Sequence[Part]:
        self._source.ended = True
        return self._certain()

    def _certain(self) -> list[Part]:
        parts: list[Part] = []
        for part in self._parts:
            if part is None or self.complete:
                break
            parts.append(part)
        return parts

    def _begin_marks(self) -> tuple[str, ...]:
        format = self._format
        if format is None:
            return ()
        anywhere = tuple(self._bare) if format.anywhere else ()
        return (
            *(format.openings if self._calls or self._messages else ()),
            *anywhere,
            *format.ignored,
            *self._ends,
        )

    def _read(self) -> Reading[None]:
        yield from self._read_reasoning()
        yield from self._read_bare()
        while not self._ended:
            space, mark = yield from self._passage(Text, self._marks)
            if not mark:
                return
            if mark in self._ends and not (self._calls and self._format and mark in self._format.openings):
                self._ended = True
                return
            if self._format and mark in self._format.ignored:
                yield from self._pass_over(space)
            elif mark in self._bare:
                self._source.at = len(space)
                yield from self._attempt("", space + mark)
            else:
                yield from self._attempt(mark, space + mark)

    def _read_reasoning(self) -> Reading[None]:
        """At the beginning alone: an answer may be about the marks."""
        source, marks = self._source, self._reasoning
        if marks is None or not marks.start:
            return
        yield from source.space()
        if not (yield from source.starts(marks.start)):
            source.at = 0
            return
        yield from source.space()
        source.commit()
        self._lent = 0
        opens = self._format.openings if self._format and self._calls and self._format.in_reasoning else ()
        _, mark = yield from self._passage(Reasoning, (*filter(None, [marks.end]), *opens))
        if mark in opens:
            source.at -= len(mark)
        yield from source.space()
        source.commit()

    def _read_bare(self) -> Reading[None]:
        if not self._bare or not self._calls:
            return
        yield from self._source.space()
        start = self._source.text[self._source.at : self._source.at + 1]
        if not start or start not in self._bare:
            self._source.at = 0
            return
        yield from self._attempt("", self._source.text[: self._source.at + 1])

    def _attempt(self, mark: str, before: str) -> Reading[None]:
        """What the mark begins, or else the mark as text. `before`: the text up to the mark's end."""
        commits = self._source.commits
        try:
            if self._messages:
                yield from self._message(mark, self._messages)
            elif self._calls:
                yield from self._calls.section(mark)
        except Malformed:
            if self._source.commits == commits and mark in self._ends:
                self._ended = True
            elif self._source.commits == commits:
                self._source.at = len(before)
                yield from self._tell(Text, before)
            self._source.at = 0
        if self._source.commits > commits:
            self._lent = 0

    def _message(self, mark: str, messages: Messages) -> Reading[None]:
        source = self._source
        header = yield from read_header(source, mark)
        yield from source.space()
        if header.recipient and self._calls:
            yield from self._calls.message(header.recipient)
            yield from source.space()
            end = yield from source.starts(*messages.ends)
        else:
            source.commit()
            self._lent = 0
            make = Reasoning if header.is_reasoning else Text
            _, end = yield from self._passage(make, (*messages.ends, *messages.borders))
            if end in messages.borders:
                source.at -= len(end)
        source.commit()
        self._ended = bool(end) and end in self._ends

    def _pass_over(self, space: str) -> Reading[None]:
        """The mark that was read, and keep the white space before it."""
        self._lent = max(0, self._lent - self._source.at)
        self._source.commit()
        if space:
            yield Text(space)

    def _passage(self, make: "type[Text] | type[Reasoning]", marks: tuple[str, ...]) -> Reading[tuple[str, str]]:
        """Tell the text up to the first of the marks, and return the mark with the white space before it.

        The source stands after the mark, and neither is committed. "" for a mark: the text has ended.
        """
        source = self._source
        while True:
            at, mark, open_from = find_mark(source.text, marks)
            if source.ended:
                open_from = len(source.text)
            if mark and open_from > at:
                before = source.text[:at]
                source.at = len(before.rstrip())
                space = before[source.at :]
                yield from self._tell(make, source.text[: source.at])
                source.at = len(space) + len(mark)
                return space, mark
            end = len(source.text) if source.ended else len(source.text[:open_from].rstrip())
            source.at = end
            yield from self._tell(make, source.text[:end])
            if source.ended:
                return "", ""
            yield None

    def _tell(self, make: "type[Text] | type[Reasoning]", text: str) -> Reading[None]:
        """And commit what was read; what was lent is not told."""
        told = text[self._lent :]
        self._lent = max(0, self._lent - len(text))
        self._source.commit()
        if told:
            yield make(told)


def _ends(format: Format | None, *, calls: bool) -> tuple[str, ...]:
    """The marks after which nothing is wanted."""
    if format is None:
        return ()
    return tuple(filter(None, (format.results if calls else "", format.last)))


def find_mark(text: str, marks: Sequence[str]) -> tuple[int, str, int]:
    """Where the first mark is, which one (the longest there, "" for none), and where one may begin at the end."""
    found = min(
        ((at, -len(mark), mark) for mark in marks if (at := _find(text, mark)) >= 0), default=(len(text), 0, "")
    )
    longest = max(map(len, marks), default=0)
    for at in range(max(0, len(text) - longest + 1), len(text)):
        rest = text[at:]
        if any(len(mark) > len(rest) and mark.startswith(rest) for mark in marks):
            return found[0], found[2], at
    return found[0], found[2], len(text)


def _find(text: str, mark: str) -> int:
    """Of a mark that overlaps itself, the last of a run: in `>>>>all` the mark is what stands before the name."""
    at = text.find(mark)
    while at >= 0 and text.startswith(mark, at + 1):
        at += 1
    return at


def _random_id(length: int) -> str:
    letters = "".join(secrets.choice(ALPHANUMERIC) for _ in range(length or OPENAI_ID))
    return letters if length else f"call_{letters}"
