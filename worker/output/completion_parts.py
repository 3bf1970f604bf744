"""The parts of a completion, and what tells them apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from atelier.submission import ToolCallPiece


@dataclass(frozen=True, slots=True)
class Text:
    """Of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the model thinks before it answers."""

    text: str


Part = Text | Reasoning | ToolCallPiece


class OutputParser(Protocol):
    """Of one completion. What may be the beginning of a mark is held back until it is certain."""

    @property
    def complete(self) -> bool:
        """Whether nothing more is wanted of the completion."""

    def push(self, text: str) -> Sequence[Part]:
        """The parts that are certain now."""

    def flush(self) -> Sequence[Part]:
        """What was held back, once no more comes."""


class PlainText:
    """All of it is the answer."""

    complete = False

    def push(self, text: str) -> Sequence[Part]:
        return [Text(text)] if text else []

    def flush(self) -> Sequence[Part]:
        return []
