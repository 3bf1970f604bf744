"""What the slots hold, and at which lengths a prompt can continue from it: the prefix tree with the checkpoints.

Where a sequence's cache can be cut at any token, a prompt continues from all that it shares with a slot; where texts
depend on how prompts are cut, from the end of a slice. Elsewhere it continues from the end of what a slot holds, from a
checkpoint, or from where a sliding window still has all that the next token sees.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import structlog
from numpy.typing import NDArray

from atelier.errors import DecodeFailed
from worker.engine.cache.checkpoints import Checkpoint, Checkpoints
from worker.engine.cache.prefix_tree import Match, Piece, PrefixTree, beginning, prompt_length
from worker.engine.model.context import Context

_log = structlog.get_logger(__name__)


class SlotContents:
    """Keeps the tree, the checkpoints and the context's sequences alike. Used on the engine's thread alone."""

    def __init__(self, context: Context, checkpoints: Checkpoints | None, *, divisible: bool) -> None:
        """`checkpoints`: None where sequences, and saved states, can be cut at any token.

        `divisible`: prompts may continue from within a slice.
        """
        self._context = context
        self._checkpoints = checkpoints
        self._keeps_tails = divisible or checkpoints is not None
        self._tree = PrefixTree(divisible=divisible)
        self._places: dict[int, Sequence[int]] = {}  # where the slot's prompt will have checkpoints

    # What there is.

    def tokens(self, slot: int) -> int:
        """How many tokens the slot holds."""
        return self._tree.tokens(slot)

    def depth(self, slot: int) -> int:
        """How many pieces the slot holds."""
        return self._tree.depth(slot)

    def reusable(self, claims: Sequence[Piece]) -> dict[int, int]:
        """From how many tokens of a prompt it can continue in each slot, without those where it cannot."""
        return self._continuations(claims)[0]

    def match(self, claims: Sequence[Piece]) -> Match:
        """How much of a prompt slots hold, and will hold soon, so that the prompt can continue from it."""
        return _best(*self._continuations(claims))

    def own_and_match(self, slot: int, claims: Sequence[Piece]) -> tuple[int, Match]:
        """From how many tokens of a prompt it can continue in this slot, and its match in all of them."""
        now, soon = self._continuations(claims)
        return now.get(slot, 0), _best(now, soon)

    def _continuations(self, claims: Sequence[Piece]) -> tuple[dict[int, int], dict[int, int]]:
        """From how many tokens of a prompt it can continue in each slot, now and once the slot's own is computed."""
        held, claimed = self._tree.commons(claims)
        most = prompt_length(claims) - 1  # the last token is computed: its logits are needed
        now = {slot: self._reusable(slot, min(tokens, most)) for slot, tokens in held.items()}
        return now, {slot: self._promised(slot, tokens, claims) for slot, tokens in claimed.items()}

    def _reusable(self, slot: int, tokens: int) -> int:
        """The most of the slot's first `tokens` tokens that a prompt can continue from."""
        if self._checkpoints is None or tokens <= 0 or self._context.can_continue(slot, tokens):
            return max(0, tokens)
        checkpoint = self._checkpoints.latest(slot, tokens)
        return checkpoint.tokens if checkpoint else 0

    def _promised(self, slot: int, tokens: int, claims: Sequence[Piece]) -> int:
        """The same of tokens that the slot will hold."""
        is_same_prompt = tokens > prompt_length(claims)
        if self._checkpoints is None or self._context.cuts_in_window or is_same_prompt:
            return tokens
        return max((place for place in self._places.get(slot, ()) if place <= tokens), default=0)

    # What is computed.

    def claim(self, slot: int, pieces: Iterable[Piece], places: Sequence[int] = ()) -> None:
        """The slot will compute these after what it holds, with checkpoints at these lengths."""
        self._tree.claim(slot, pieces)
        self._places[slot] = places

    def fulfil(self, slot: int) -> None:
        """The first of the slot's claims is computed."""
        self._tree.fulfil(slot)

    def unclaim(self, slot: int) -> None:
        """The slot does not compute the rest of its claims."""
        self._tree.unclaim(slot)

    def hold(self, slot: int, pieces: Sequence[Piece], tail: Piece = ()) -> None:
        """The slot holds these after what it holds, and then nothing but the tail."""
        self._tree.hold(slot, pieces, tail if self._keeps_tails else ())

    def checkpoint(self, slot: int, tokens: int) -> None:
        """The slot's sequence has so many tokens now: later prompts can continue from there."""
        if self._checkpoints is None or tokens in self._checkpoints.lengths(slot):
            return
        try:
            self._checkpoints.add(slot, Checkpoint(tokens, self._context.checkpoint(slot)))
        except (DecodeFailed, MemoryError) as error:
            _log.warning("checkpoint_not_made", tokens=tokens, reason=str(error) or "there is no memory for it")

    # What is cut and copied.

    def shorten(self, slot: int, claims: Sequence[Piece]) -> None:
        """The slot is a prompt's now: it holds no more than what both share."""
        held, _ = self._tree.commons(claims)
        common = held.get(slot, 0)
        self._tree.cut(slot, common)
        if self._checkpoints is None:
            self._context.keep_prefix(slot, common)
        else:  # its sequence is cut once it is known from where the prompt continues
            self._checkpoints.cut(slot, common)

    def resume(self, slot: int, tokens: int) -> None:
        """The slot keeps so many of its tokens, a reusable number. Raises DecodeFailed, and leaves it empty then."""
        self._change(slot, lambda: self._put(slot, slot, tokens))
        self._tree.cut(slot, tokens)
        if self._checkpoints is not None:
            self._checkpoints.cut(slot, tokens)

    def copy(self, source: int, slot: int, tokens: int) -> None:
        """The slot holds so many tokens of another one, a reusable number there.

        Raises DecodeFailed, and leaves the slot empty then.
        """
        self._change(slot, lambda: self._put(source, slot, tokens))
        self._tree.copy(source, slot, tokens)
        if self._checkpoints is not None:
            self._checkpoints.copy(source, slot, tokens)

    def restore(self, slot: int, pieces: Sequence[Piece], state: NDArray[np.uint8]) -> None:
        """The slot holds these pieces, the beginning of a saved state. Raises DecodeFailed, and empties it then."""
        tokens = sum(map(len, pieces))
        self._tree.cut(slot, 0)
        if self._checkpoints is not None:
            self._checkpoints.cut(slot, 0)
        self._change(slot, lambda: self._put_state(slot, tokens, state))
        self._tree.hold(slot, pieces)
        self.checkpoint(slot, tokens)

    def empty(self, slot: int) -> None:
        """Nothing of the slot is reused; its sequence is emptied when it is used again."""
        self._tree.cut(slot, 0)
        if self._checkpoints is not None:
            self._checkpoints.cut(slot, 0)

    def _put(self, source: int, slot: int, tokens: int) -> None:
        """Make the slot's sequence the first tokens of a source, which may be the slot itself."""
        context = self._context
        checkpoint = None
        if self._checkpoints is not None and tokens and not context.can_continue(source, tokens):
            checkpoint = self._checkpoints.latest(source, tokens)
            assert checkpoint is not None, "not a reusable number of tokens"
            assert checkpoint.tokens == tokens, "not a reusable number of tokens"
        if source != slot:
            if checkpoint is None:
                context.copy(source, slot)
            else:
                context.put_state(slot, context.state(source))
        if checkpoint is None:
            context.keep_prefix(slot, tokens)
        else:
            context.put_checkpoint(slot, tokens, checkpoint.state)

    def _put_state(self, slot: int, tokens: int, state: NDArray[np.uint8]) -> None:
        self._context.put_state(slot, state)
        self._context.keep_prefix(slot, tokens)

    def _change(self, slot: int, change: Callable[[], None]) -> None:
        try:
            change()
        except DecodeFailed:
            self.empty(slot)
            raise

    # What outlasts the slots.

    def savable(self, slot: int) -> list[Piece]:
        """What a saved state of the slot would hold.

        Where a saved state cannot be cut, it is of use at its end alone. So that is the last checkpoint, which most
        later prompts share, rather than the end of an answer that they may not repeat word for word.
        """
        pieces, tokens = self._tree.pieces(slot), self._tree.tokens(slot)
        if self._checkpoints is None:
            return pieces
        if (last := self._checkpoints.latest(slot, tokens)) is not None:
            return beginning(pieces, last.tokens)
        return pieces if self._context.can_continue(slot, tokens) else []

    def elsewhere(self, slot: int, pieces: Sequence[Piece]) -> bool:
        """Whether a prompt that begins with these pieces could continue from them in another slot."""
        tokens = sum(map(len, pieces))
        held, _ = self._tree.commons(pieces)
        return any(
            other != slot and common >= tokens and self._reusable(other, tokens) == tokens
            for other, common in held.items()
        )


def _best(now: dict[int, int], soon: dict[int, int]) -> Match:
    """Of the tokens that a prompt can continue from in each slot, now and soon."""
    held, claimed = max(now.values(), default=0), max(soon.values(), default=0)
    holders = frozenset(slot for slot, tokens in now.items() if tokens == held and held)
    if claimed <= held:
        return Match(held, holders, held)
    return Match(held, holders, claimed, frozenset(slot for slot, tokens in soon.items() if tokens == claimed))
