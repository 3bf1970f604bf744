"""Prompt lookup: guess the next tokens from what followed the same few tokens earlier in the text."""

from collections.abc import Iterable, Sequence

from worker.engine.speculation.drafting import Wish

LONGEST, SHORTEST = 4, 2  # tokens that must repeat


class LookupDrafter:
    """Guesses from each sequence's own text, which it indexes as it grows."""

    def __init__(self) -> None:
        self._texts: dict[int, PromptLookup] = {}  # by slot

    def propose(self, wishes: Sequence[Wish]) -> list[list[int]]:
        return [self._follow(wish).propose(wish.count) for wish in wishes]

    def forget(self, slot: int) -> None:
        self._texts.pop(slot, None)

    def _follow(self, wish: Wish) -> "PromptLookup":
        known = self._texts.setdefault(wish.slot, PromptLookup(()))
        for token in wish.text.text_from(len(known)):
            known.push(token)
        return known


class PromptLookup:
    """The text of one sequence, prompt and completion, indexed by its n-grams."""

    def __init__(self, tokens: Iterable[int]) -> None:
        self._tokens: list[int] = []
        self._last: dict[tuple[int, ...], int] = {}  # n-gram -> where the text went on after it, last time
        for token in tokens:
            self.push(token)

    def __len__(self) -> int:
        return len(self._tokens)

    def push(self, token: int) -> None:
        """The text is one token longer."""
        # What precedes this token is indexed only now, so that a lookup never finds the text's own end.
        end = len(self._tokens)
        for length in range(SHORTEST, min(LONGEST, end) + 1):
            self._last[tuple(self._tokens[end - length :])] = end
        self._tokens.append(token)

    def propose(self, count: int) -> list[int]:
        """Up to `count` tokens that may come next; none where nothing repeats."""
        for length in range(min(LONGEST, len(self._tokens)), SHORTEST - 1, -1):
            if (at := self._last.get(tuple(self._tokens[-length:]))) is not None:
                return self._tokens[at : at + count]
        return []
