"""The text of a decoding sequence, written by a test."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class WrittenText:
    tokens: list[int] = field(default_factory=list)
    slot: int = 0
    fairness_key: str = ""
    prompt_length: int = 0
    pending_length: int = 1
    draft_room: int = 1000
    forbidden: int | None = None  # a token that its constraint does not allow

    @property
    def text_length(self) -> int:
        return len(self.tokens)

    def text_from(self, start: int) -> list[int]:
        return self.tokens[start:]

    def allowed(self, tokens: Sequence[int]) -> int:
        return next((at for at, token in enumerate(tokens) if token == self.forbidden), len(tokens))
