"""The time in which all sequences decode, and the tokens of that time."""

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Window:
    """From when every sequence has its first token until one has its last."""

    streams: int
    tokens: dict[int, int] = field(default_factory=dict)  # by sequence
    began: float | None = None
    counted: int = 0
    ended: float | None = None

    def note(self, sequence: int, tokens: int) -> None:
        everyone_had = len(self.tokens) == self.streams
        self.tokens[sequence] = self.tokens.get(sequence, 0) + tokens
        if everyone_had and self.ended is None:
            self.counted += tokens
        elif len(self.tokens) == self.streams and self.began is None:
            self.began = time.monotonic()

    def end(self) -> None:
        if self.ended is None:
            self.ended = time.monotonic()

    @property
    def tokens_per_second(self) -> float:
        assert self.began is not None
        assert self.ended is not None
        return self.counted / (self.ended - self.began)
