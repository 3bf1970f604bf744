"""The position of one sequence in its grammar: llguidance decides which tokens may follow, over llama.cpp's logits."""

from collections.abc import Callable, Sequence

import numpy as np
from llguidance import LLMatcher
from llguidance.numpy import allocate_token_bitmask
from numpy.typing import NDArray

from atelier.errors import InvalidRequest
from worker.engine.constraint.json_schema import one_line

MOST_FORCED = 24  # tokens: together with the sampled one they fit into the smallest batch

Refusal = Callable[[str], InvalidRequest]
"""Makes the error of a reason why a constraint cannot be used."""


class Matcher:
    """Advances by the sequence's tokens.

    The mask is computed once for each position: ahead of the logits, if there is time.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        vocabulary_size: int,
        refusal: Refusal,
        unenforced: tuple[str, ...] = (),
        forbidden: "NDArray[np.bool_] | None" = None,
    ) -> None:
        self.unenforced = unenforced  # keywords of the schema that the text may violate
        self._matcher = matcher
        self._size = vocabulary_size
        self._refusal = refusal
        self._bits = allocate_token_bitmask(1, vocabulary_size)
        self._address = self._bits.ctypes.data
        self._forbidden = forbidden  # tokens at this position; None: not computed yet
        self._forced: tuple[int, ...] = ()  # tokens that were found to have no alternative
        self._consumed = 0  # of these

    def copy(self) -> "Matcher":
        copy = Matcher(self._matcher.deep_copy(), self._size, self._refusal, self.unenforced, self._forbidden)
        copy._forced, copy._consumed = self._forced, self._consumed
        return copy

    def compute_mask(self) -> None:
        """Compute which tokens may follow. Needs no logits, and releases the interpreter's lock most of the time."""
        if self._forbidden is not None:
            return
        if self._consumed < len(self._forced):
            self._forbidden = np.ones(self._size, np.bool_)
            self._forbidden[self._forced[self._consumed]] = False
            return
        self._matcher.unsafe_compute_mask_ptr(self._address, self._bits.nbytes)
        self._check()
        forbidden = np.unpackbits(~self._bits.view(np.uint8)[0], count=self._size, bitorder="little")
        self._forbidden = forbidden.view(np.bool_)

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Set the logits of every token that may not follow to -inf, in place. `logits`: [vocabulary]."""
        self.compute_mask()
        assert self._forbidden is not None
        np.copyto(logits, np.float32(-np.inf), where=self._forbidden)

    def forced(self) -> list[int]:
        """The next tokens that have no alternative, at most MOST_FORCED. They are not consumed."""
        if self._consumed == len(self._forced):  # takes a tenth of a second for a text of 100,000 bytes
            self._forced, self._consumed = tuple(self._matcher.compute_ff_tokens()), 0
            self._check()
        return list(self._forced[self._consumed : self._consumed + MOST_FORCED])

    def consume(self, token: int) -> bool:
        """Advance by a token. Returns False when the text is complete."""
        return self.consume_all([token])

    def consume_all(self, tokens: Sequence[int]) -> bool:
        """Advance by tokens. Returns False when the text is complete."""
        self._forbidden = None
        self._advance_forced(tokens)
        if not self._matcher.consume_tokens(list(tokens)):
            self._check()
        return not self._matcher.is_stopped()

    def acceptable(self, tokens: Sequence[int]) -> int:
        """How many of these tokens may follow, one after the other. None is consumed."""
        count: int = self._matcher.validate_tokens(list(tokens))
        return count

    def rollback(self, tokens: int) -> None:
        """Go back by this number of tokens."""
        self._forbidden = None
        self._forced, self._consumed = (), 0
        if not self._matcher.rollback(tokens):
            self._check()

    def _advance_forced(self, tokens: Sequence[int]) -> None:
        """Keep what remains of the forced tokens, if these were the next of them."""
        end = self._consumed + len(tokens)
        if self._forced[self._consumed : end] == tuple(tokens):
            self._consumed = end
        else:
            self._forced, self._consumed = (), 0

    def _check(self) -> None:
        if self._matcher.is_error():
            raise self._refusal(f"The constraint failed: {one_line(self._matcher.get_error())}")
