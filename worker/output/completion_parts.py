"""The parts of a completion, and the interface of the parsers that separate them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from atelier.generation_types import ToolCallPiece


@dataclass(frozen=True, slots=True)
class AnswerText:
    """Text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text that precedes the answer: the model's reasoning."""

    text: str


Part = AnswerText | Reasoning | ToolCallPiece
PartType = type[AnswerText] | type[Reasoning]


class OutputParser(Protocol):
    """Parses one completion. Holds back text that may be the beginning of a mark until that is certain."""

    @property
    def complete(self) -> bool:
        """Whether the completion may stop here: whatever follows would be ignored."""

    @property
    def in_reasoning(self) -> bool:
        """Whether the text that follows is reasoning, unless it ends that."""

    def push(self, text: str) -> Sequence[Part]:
        """The parts that are certain after this text."""

    def flush(self) -> Sequence[Part]:
        """What was held back, at the end of the completion."""


class PlainText:
    """The parser for completions that are text of the answer and nothing else."""

    complete = in_reasoning = False

    def push(self, text: str) -> Sequence[Part]:
        return [AnswerText(text)] if text else []

    def flush(self) -> Sequence[Part]:
        return []
