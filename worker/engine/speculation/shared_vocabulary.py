"""Whether one model can guess for another: their token numbers must mean the same."""

from typing import Protocol

from atelier.errors import LoadFailed

MOST_DIFFERENCE = 128  # tokens; makers pad vocabularies to round numbers (llama.cpp's common/speculative.cpp)
FIRST_COMPARED = 5  # the special tokens before it differ in name alone (the same)


class Tokens(Protocol):
    """What of a vocabulary is compared."""

    size: int

    @property
    def kind(self) -> int: ...

    @property
    def borders(self) -> tuple[int | None, int | None]: ...

    def text(self, token: int) -> bytes: ...


def shared_size(main: Tokens, draft: Tokens) -> int:
    """How many tokens both models have, from the first on; LoadFailed when they are not the same ones."""
    if (difference := _difference(main, draft)) is not None:
        raise LoadFailed(
            f"The draft model cannot guess for this model: {difference}. "
            "Name a smaller model of the same family as draft_model, or none."
        )
    return min(main.size, draft.size)


def _difference(main: Tokens, draft: Tokens) -> str | None:
    if main.kind != draft.kind:
        return "their vocabularies are of different types"
    if abs(main.size - draft.size) > MOST_DIFFERENCE:
        return f"its vocabulary has {draft.size} tokens, and this model's {main.size}"
    if main.borders != draft.borders:
        return "it begins or ends its texts with another token"
    for token in range(FIRST_COMPARED, min(main.size, draft.size)):
        if main.text(token) != draft.text(token):
            return (
                f"token {token} means {_shown(draft.text(token))} to it, and {_shown(main.text(token))} to this model"
            )
    return None


def _shown(text: bytes) -> str:
    return f'"{text[:40].decode(errors="replace")}"'
