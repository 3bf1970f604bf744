"""Prompt lookup decoding: drafts what followed the same few tokens earlier in the text.

Source: https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from collections.abc import Iterable, Sequence

from worker.engine.speculation.drafting import DraftRequest

LONGEST, SHORTEST = 4, 2  # lengths of the n-grams that are looked up, in tokens


class LookupDrafter:
    """Drafts from each sequence's own text, which it indexes as the text grows."""

    def __init__(self) -> None:
        self._texts: dict[int, PromptLookup] = {}  # by slot

    def propose(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        return [self._follow(request).propose(request.count) for request in requests]

    def forget(self, slot: int) -> None:
        self._texts.pop(slot, None)

    def _follow(self, request: DraftRequest) -> "PromptLookup":
        known = self._texts.setdefault(request.slot, PromptLookup(()))
        for token in request.text.text_from(len(known)):
            known.push(token)
        return known


class PromptLookup:
    """The text of one sequence, prompt and completion, indexed by its n-grams."""

    def __init__(self, tokens: Iterable[int]) -> None:
        self._tokens: list[int] = []
        self._last: dict[tuple[int, ...], int] = {}  # n-gram -> index of the token after its last occurrence
        for token in tokens:
            self.push(token)

    def __len__(self) -> int:
        return len(self._tokens)

    def push(self, token: int) -> None:
        """Append a token to the text."""
        # The n-grams that end before this token are indexed only now: a lookup must never find the text's own end.
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
