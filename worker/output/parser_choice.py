"""How a chat's completion is parsed, decided from the settings, the chat template and the end of the prompt."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from atelier.submission import OutputFormat, Tools
from worker.output.completion_parser import CompletionParser
from worker.output.completion_parts import AnswerText, OutputParser, PartType, PlainText
from worker.output.family_detection import detect_family
from worker.output.family_format import FamilyFormat, ReasoningMarks
from worker.output.family_table import FORMATS
from worker.output.reasoning_section import ReasoningSection


@dataclass(frozen=True, slots=True)
class ParserChoice:
    """What a completion is parsed for. Without tools, nothing is parsed as a call.

    `opened`: the mark that the prompt ends with and the completion continues; "" for none.
    `continued`: the part that the prompt ends within, of a message that is continued.
    """

    format: FamilyFormat | None = None
    reasoning: ReasoningMarks | None = None
    tools: Tools | None = None
    opened: str = ""
    continued: PartType | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the whole completion is the answer's text."""
        format = self.format
        has_marks = format is not None and bool(format.ignored or format.end_of_turn or format.messages)
        return self.reasoning is None and self.tools is None and not has_marks

    @property
    def create_parser(self) -> Callable[[], OutputParser]:
        """Makes a parser for one completion."""
        return PlainText if self.is_plain else self._completion_parser

    def _completion_parser(self) -> OutputParser:
        return CompletionParser(self.format, self.reasoning, self.tools, self.opened, self.continued)

    @property
    def reasoning_section(self) -> ReasoningSection | None:
        """The texts around the completion's reasoning; None if none is parsed."""
        if self.format is not None and (messages := self.format.messages):
            ends, others = (*messages.ends, *messages.starts), (messages.answer, messages.preamble)
            return ReasoningSection(messages.reasoning, messages.end + messages.next_start, ends, others)
        if (marks := self.reasoning) is None:
            return None
        calls = self.format.openings if self.format and self.tools and self.format.in_reasoning else ()
        return ReasoningSection(marks.start, marks.end, (marks.end, *calls))

    @property
    def marks(self) -> Iterator[str]:
        """Texts that the parser must see even where they are control tokens."""
        if self.reasoning is not None:
            yield from (self.reasoning.start, self.reasoning.end)
        if self.format is not None:
            yield from filter(None, [*self.format.ignored, self.format.end_of_turn])
            if self.format.messages:
                yield from self.format.messages.marks
            if self.tools is not None:
                yield from self.format.call_texts


PLAIN_TEXT = ParserChoice()


def choose_format(output: OutputFormat, template: str) -> FamilyFormat:
    """The format that the settings name, or else the template's."""
    return detect_family(template).format if output.tool_calls == "auto" else FORMATS[output.tool_calls]


def choose_parser(output: OutputFormat, template: str, tools: Tools | None) -> ParserChoice:
    """The settings' format and marks, or else the template's, before the prompt is known."""
    choice = _without_tools(output, template)
    return choice if tools is None else replace(choice, tools=tools)


@lru_cache(maxsize=32)
def _without_tools(output: OutputFormat, template: str) -> ParserChoice:
    """Cached: it is the same for every request, unless one brings a template of its own."""
    return ParserChoice(choose_format(output, template), choose_reasoning(output, template))


def choose_reasoning(output: OutputFormat, template: str) -> ReasoningMarks | None:
    """The settings' marks; one that is not set is the template's. An empty mark turns reasoning off."""
    own = detect_family(template).reasoning
    start = output.reasoning_start if output.reasoning_start is not None else own.start if own else ""
    end = output.reasoning_end if output.reasoning_end is not None else own.end if own else ""
    return ReasoningMarks(start, end) if start and end else None


def after_prompt(choice: ParserChoice, prompt: str) -> ParserChoice:
    """The choice for the completion of this prompt, of which the end is enough."""
    marks = (choice.reasoning.start if choice.reasoning else "", choice.format.prompt_end if choice.format else "")
    return replace(choice, opened=opened_by(prompt, marks))


def within(choice: ParserChoice, part: PartType) -> ParserChoice:
    """The choice for a completion that continues this part: with text of the answer before it, reasoning is over."""
    return replace(choice, continued=part, reasoning=None if part is AnswerText else choice.reasoning)


def opened_by(prompt: str, marks: Sequence[str]) -> str:
    """The mark that the prompt ends with, so that the completion continues after it; "" for none."""
    end = prompt.rstrip()
    return max((mark for mark in marks if mark and end.endswith(mark)), key=len, default="")
