"""Parses completions that arrive in pieces, and joins their parts."""

from collections.abc import Callable, Iterable, Sequence

from atelier.generation_types import ToolCallPiece
from worker.output.completion_parts import AnswerText, OutputParser, Part, Reasoning

PlainPart = tuple[str, ...]
"""("text", ...), ("reasoning", ...) or ("call", name, arguments)."""


def parts_of(parser: OutputParser, pieces: Iterable[str]) -> list[PlainPart]:
    """The parts in order, each as long as possible."""
    parts: list[Part] = []
    for piece in pieces:
        parts += parser.push(piece)
    parts += parser.flush()
    return joined(parts)


def joined(parts: Sequence[Part]) -> list[PlainPart]:
    out: list[PlainPart] = []
    for part in parts:
        match part:
            case AnswerText(text):
                _append(out, "text", text)
            case Reasoning(text):
                _append(out, "reasoning", text)
            case ToolCallPiece(index, id, name, arguments) if name:
                assert id
                assert index == sum(each[0] == "call" for each in out)
                out.append(("call", name, arguments))
            case ToolCallPiece(index, _, _, arguments):
                assert out[-1][0] == "call"
                out[-1] = (*out[-1][:2], out[-1][2] + arguments)
    return out


def _append(out: list[PlainPart], kind: str, text: str) -> None:
    assert text
    if out and out[-1][0] == kind:
        out[-1] = (kind, out[-1][1] + text)
    else:
        out.append((kind, text))


def every_cut(make: Callable[[], OutputParser], text: str) -> list[PlainPart]:
    """The parts of the text; checks that they are the same wherever it is split."""
    whole = parts_of(make(), [text])
    assert parts_of(make(), text) == whole
    for at in range(1, len(text)):
        assert parts_of(make(), [text[:at], text[at:]]) == whole, text[:at]
    return whole
