"""How a chat's completion is read, decided from its settings, its template and its prompt."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from atelier.submission import OutputFormat, Tools
from worker.output.completion_parser import CompletionParser
from worker.output.completion_parts import OutputParser, PlainText
from worker.output.family_detection import opened_by, recognise_format, recognise_reasoning
from worker.output.format_table import FORMATS
from worker.output.format_types import Format, ReasoningMarks


@dataclass(frozen=True, slots=True)
class OutputReading:
    """`opened`: a mark that the prompt ends with. Without tools nothing is read as a call."""

    format: Format | None = None
    reasoning: ReasoningMarks | None = None
    tools: Tools | None = None
    opened: str = ""

    def parser(self) -> OutputParser:
        """A new one, for one completion."""
        if self.format is None and self.reasoning is None:
            return PlainText()
        return CompletionParser(self.format, self.reasoning, self.tools, self.opened)

    @property
    def marks(self) -> Iterable[str]:
        """Texts that the parser must see though they may be control tokens."""
        if self.reasoning is not None:
            yield from (self.reasoning.start, self.reasoning.end)
        if self.format is not None:
            yield from filter(None, [*self.format.ignored, self.format.last])
            if self.format.messages:
                yield from self.format.messages.marks
            if self.tools is not None:
                yield from self.format.texts


PLAIN = OutputReading()


def choose_format(output: OutputFormat, template: str) -> Format:
    """The settings', or the template's."""
    return recognise_format(template) if output.tool_calls == "auto" else FORMATS[output.tool_calls]


def choose_reading(output: OutputFormat, template: str, tools: Tools | None) -> OutputReading:
    """The settings' marks and format, or those of the template. The prompt is yet to be rendered."""
    format = choose_format(output, template)
    needed = tools is not None or format.ignored or format.last or format.messages
    return OutputReading(format if needed else None, _reasoning(output, template), tools)


def _reasoning(output: OutputFormat, template: str) -> ReasoningMarks | None:
    """A mark that is set goes with the template's other one, if that is not set too. Empty: there is none."""
    own = recognise_reasoning(template)
    start = output.reasoning_start if output.reasoning_start is not None else own.start if own else ""
    end = output.reasoning_end if output.reasoning_end is not None else own.end if own else ""
    return ReasoningMarks(start, end) if start and end else None


def after_prompt(reading: OutputReading, prompt: str) -> OutputReading:
    """The reading of what follows this prompt."""
    marks = (reading.reasoning.start if reading.reasoning else "", reading.format.prompted if reading.format else "")
    return replace(reading, opened=opened_by(prompt, marks))
