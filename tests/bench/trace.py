"""One streamed answer as its client saw it. Pure: made of pieces of a body and the times they came at."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Piece = tuple[float, bytes]  # when, in seconds of the monotonic clock, and what


@dataclass(frozen=True, slots=True)
class Trace:
    """Times in seconds of the monotonic clock. `arrivals` are those of the events that carry text."""

    sent: float
    arrivals: tuple[float, ...] = ()
    text: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt's, as the server says
    finish_reason: str | None = None
    error: str | None = None

    @property
    def whole(self) -> bool:
        """A stream without a finish reason was interrupted."""
        return self.error is None and self.finish_reason is not None

    @property
    def first(self) -> float:
        return self.arrivals[0]

    @property
    def last(self) -> float:
        return self.arrivals[-1]

    @property
    def time_to_first_token(self) -> float:
        return self.first - self.sent


def read_trace(sent: float, pieces: Iterable[Piece]) -> Trace:
    """A server that reports no usage sends one token an event, so its tokens are counted by events."""
    arrivals: list[float] = []
    texts: list[str] = []
    usage: dict[str, Any] = {}
    finish_reason = error = None
    for at, event in events(pieces):
        if failure := event.get("error"):
            error = str(failure.get("message", failure) if isinstance(failure, dict) else failure)
        usage = event.get("usage") or usage
        for choice in event.get("choices") or []:
            finish_reason = choice.get("finish_reason") or finish_reason
            if text := choice.get("delta", {}).get("content"):
                arrivals.append(at)
                texts.append(text)
    tokens = usage.get("completion_tokens", len(arrivals))
    prompt_tokens = usage.get("prompt_tokens", 0)
    cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Trace(sent, tuple(arrivals), "".join(texts), tokens, prompt_tokens, cached_tokens, finish_reason, error)


def events(pieces: Iterable[Piece]) -> Iterator[tuple[float, dict[str, Any]]]:
    """Each event and when its line was whole; an event may come in several pieces, or several in one."""
    begun = b""
    for at, piece in pieces:
        *lines, begun = (begun + piece).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                yield at, json.loads(data)
