"""Separates the parts of one completion as it arrives: the answer's text, reasoning, tool calls."""

import re
import secrets
import string
from collections.abc import Callable, Sequence

from atelier.submission import Tools
from worker.output.completion_parts import AnswerText, Part, PartType, Reasoning
from worker.output.family_format import MESSAGE_START, FamilyFormat, Messages, ReasoningMarks
from worker.output.text_source import CompletionSource, Malformed, Reading
from worker.output.tool_call_reader import ToolCallReader

ALPHANUMERIC = string.ascii_letters + string.digits
OPENAI_ID = 24  # characters after "call_"
LONGEST_HEADER = 400  # characters
RECIPIENT = re.compile(r"to=(?P<name>[^\s<]+)")
CHANNEL = re.compile(r"(?:<\|channel\|>|^)\s*(\w+)")


class CompletionParser:
    """Drops white space beside reasoning and calls; any other text belongs to one of the parts.

    What was emitted cannot be taken back: where a call's arguments break off they stay as they are, and the rest of
    the completion is text.
    """

    def __init__(
        self,
        format: FamilyFormat | None = None,
        reasoning: ReasoningMarks | None = None,
        tools: Tools | None = None,
        opened: str = "",
        continued: PartType | None = None,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        """`opened`: the mark that the prompt ends with and the completion continues.

        `continued`: the part within which the prompt ends.
        """
        self.in_reasoning = False
        source = self._source = CompletionSource(opened)
        self._prompted = len(opened)  # characters at the source's beginning that are the prompt's, and not emitted
        self._format = format
        self._reasoning = reasoning
        self._continued = continued
        self._one_at_a_time = tools is not None and tools.one_at_a_time
        make_id = new_id or (lambda: _random_id(format.id_length if format else 0))
        self._calls = ToolCallReader(source, format, tools, make_id) if format and tools else None
        self._messages = format.messages if format else None
        self._end_marks = _end_marks(format, calls=self._calls is not None)
        self._ended = False
        self._bare = format.bare if format and self._calls else ""
        self._marks = self._begin_marks()
        self._parts = self._read()
        if opened or continued:
            self._certain()  # no parts: only the prompt's text is there

    @property
    def complete(self) -> bool:
        """Whether the rest would be ignored: the only allowed call is there, or the model would invent its result."""
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
        openings = format.openings if self._calls or self._messages else ()
        anywhere = tuple(self._bare) if format.bare_anywhere else ()
        return (*openings, *anywhere, *format.ignored, *self._end_marks)

    def _read(self) -> Reading[None]:
        if self._continued is None:
            while (yield from self._read_reasoning()):
                pass
            yield from self._read_bare()
        else:
            yield from self._read_continued(self._continued)
        while not self._ended:
            space, mark = yield from self._read_up_to(self._marks, AnswerText)
            if not mark:
                return
            if mark in self._end_marks and not (self._calls and self._format and mark in self._format.openings):
                self._ended = True
                return
            if self._format and mark in self._format.ignored:
                yield from self._drop_mark(space)
            elif mark in self._bare:
                self._source.at = len(space)
                yield from self._read_marked("", space + mark)
            else:
                yield from self._read_marked(mark, space + mark)

    def _read_reasoning(self) -> Reading[bool]:
        """Only before the answer, which may mention the marks. Returns whether more reasoning may follow at once."""
        source, marks = self._source, self._reasoning
        if marks is None or not marks.start:
            return False
        yield from source.skip_space()
        if not (yield from source.take(marks.start)):
            source.at = 0
            return False
        self.in_reasoning = True
        yield from source.skip_space()
        source.commit()
        self._prompted = 0
        return (yield from self._read_thought())

    def _read_thought(self) -> Reading[bool]:
        """The thought, from its first word to the mark that ends it. Returns whether more reasoning may follow."""
        source, marks = self._source, self._reasoning
        assert marks is not None
        self.in_reasoning = True
        openings = self._format.openings if self._format and self._calls and self._format.in_reasoning else ()
        _, mark = yield from self._read_up_to((*filter(None, [marks.end]), *openings), Reasoning)
        self.in_reasoning = False
        if mark in openings:
            source.at -= len(mark)
        yield from source.skip_space()
        source.commit()
        return mark == marks.end

    def _read_continued(self, part: PartType) -> Reading[None]:
        """The rest of the part: its white space belongs to it."""
        if self._messages:
            yield from self._read_rest(part, self._messages)
        elif part is Reasoning and self._reasoning:
            again = yield from self._read_thought()
            while again:
                again = yield from self._read_reasoning()

    def _read_bare(self) -> Reading[None]:
        """Calls at the beginning of the answer, without a mark."""
        if not self._bare or not self._calls:
            return
        yield from self._source.skip_space()
        start = self._source.text[self._source.at : self._source.at + 1]
        if not start or start not in self._bare:
            self._source.at = 0
            return
        yield from self._read_marked("", self._source.text[: self._source.at + 1])

    def _read_marked(self, mark: str, before: str) -> Reading[None]:
        """The calls or the message that the mark begins, or the mark as text. `before`: the text up to its end."""
        commits = self._source.commits
        try:
            if self._messages:
                yield from self._read_message(mark, self._messages)
            elif self._calls:
                yield from self._calls.read_section(mark)
        except Malformed:
            if self._source.commits == commits and mark in self._end_marks:
                self._ended = True
            elif self._source.commits == commits:
                self._source.at = len(before)
                yield from self._emit(AnswerText, before)
            self._source.at = 0
        if self._source.commits > commits:
            self._prompted = 0

    def _read_message(self, mark: str, messages: Messages) -> Reading[None]:
        source = self._source
        header = yield from source.until(MESSAGE_START, LONGEST_HEADER)
        part, tool = parse_header(header if mark == "<|channel|>" else header.removeprefix("assistant"))
        calls = self._calls if tool else None
        self.in_reasoning = part is Reasoning and calls is None
        yield from source.skip_space()
        if calls:
            yield from calls.read_message(tool)
            yield from source.skip_space()
            end = yield from source.take(*messages.ends)
        else:
            source.commit()
            self._prompted = 0
            yield from self._read_rest(part, messages)
            return
        self._end_message(end)

    def _read_rest(self, part: PartType, messages: Messages) -> Reading[None]:
        """The rest of a message without a call, and the mark that ends it."""
        self.in_reasoning = part is Reasoning
        _, end = yield from self._read_up_to((*messages.ends, *messages.starts), part)
        self.in_reasoning = False
        if end in messages.starts:
            self._source.at -= len(end)
        self._end_message(end)

    def _end_message(self, end: str) -> None:
        self._source.commit()
        self._ended = bool(end) and end in self._end_marks

    def _drop_mark(self, space: str) -> Reading[None]:
        """Drop the mark that was read, and keep the white space before it."""
        self._prompted = max(0, self._prompted - self._source.at)
        self._source.commit()
        if space:
            yield AnswerText(space)

    def _read_up_to(self, marks: tuple[str, ...], part: PartType) -> Reading[tuple[str, str]]:
        """Emit the text before the first of the marks; return the mark and the white space before it.

        The source then stands after the mark; neither is committed. An empty mark: the completion has ended.
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
                yield from self._emit(part, source.text[: source.at])
                source.at = len(space) + len(mark)
                return space, mark
            end = len(source.text) if source.ended else len(source.text[:open_from].rstrip())
            source.at = end
            yield from self._emit(part, source.text[:end])
            if source.ended:
                return "", ""
            yield None

    def _emit(self, part: PartType, text: str) -> Reading[None]:
        """Commit what was read, and emit the text without what the prompt contains of it."""
        generated = text[self._prompted :]
        self._prompted = max(0, self._prompted - len(text))
        self._source.commit()
        if generated:
            yield part(generated)


def parse_header(header: str) -> tuple[PartType, str]:
    """What a message is, and the tool that it is addressed to; "" where it is no call.

    OpenAI's harmony: <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...
    <|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}<|call|>
    Muse Glimmer: to=self<|message|>...<|eom|><|start|>assistant to=user<|message|>...<|eot|>
    """
    channel, recipient = CHANNEL.search(header), RECIPIENT.search(header)
    name = recipient["name"] if recipient else ""
    if name in ("self", "user"):
        return (Reasoning if name == "self" else AnswerText), ""
    is_reasoning = channel is not None and channel[1] == "analysis"
    return (Reasoning if is_reasoning else AnswerText), name.removeprefix("functions.")


def _end_marks(format: FamilyFormat | None, *, calls: bool) -> tuple[str, ...]:
    """The marks after which the rest of the completion is ignored."""
    if format is None:
        return ()
    return tuple(filter(None, (format.results_mark if calls else "", format.end_of_turn)))


def find_mark(text: str, marks: Sequence[str]) -> tuple[int, str, int]:
    """The position of the first mark, the longest mark there ("" for none), and where another may begin at the end."""
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
    """The position of the mark; the last one in a run, as `>>>>all` is ">" and then the mark ">>>" before a name."""
    at = text.find(mark)
    while at >= 0 and text.startswith(mark, at + 1):
        at += 1
    return at


def _random_id(length: int) -> str:
    letters = "".join(secrets.choice(ALPHANUMERIC) for _ in range(length or OPENAI_ID))
    return letters if length else f"call_{letters}"
