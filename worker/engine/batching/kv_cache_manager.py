"""The slots of the KV cache: which are free, what they hold, and how a prompt finds its beginning in one of them."""

from collections.abc import Sequence

from worker.engine.batching.scheduler import Begin, FreeSlot, begin_or_wait, choose_slot
from worker.engine.cache.cache_tier import CacheTier
from worker.engine.cache.prefix_tree import Piece, PrefixTree
from worker.engine.model.context import Context
from worker.engine.model.decode_costs import Costs


class KVCacheManager:
    """Owns the slots. Used on the engine's thread alone."""

    def __init__(
        self, context: Context, slots: int, costs: Costs, *, reuse: bool, tier: CacheTier | None = None
    ) -> None:
        """`reuse`: slots keep what they hold after their sequences. `tier`: saves what slots lose."""
        self._context = context
        self._slots = slots
        self._costs = costs
        self._reuse = reuse
        self._tier = tier
        self._prefixes = PrefixTree()
        self._free = list(range(slots))  # the least recently used first

    @property
    def tier(self) -> CacheTier | None:
        return self._tier

    @property
    def has_free(self) -> bool:
        return bool(self._free)

    def take(self, pieces: Sequence[Piece], claims: Sequence[Piece]) -> int:
        """The free slot that is cheapest for this prompt, cut to what it holds of the prompt's pieces."""
        slot = choose_slot(
            self._free_slots(pieces), copy_tokens=self._costs.worth_copying, split_tokens=self._costs.split_tokens
        )
        self._free.remove(slot.id)
        if self._tier is not None:
            self._tier.save(slot.id, self._prefixes, claims)
        self._prefixes.cut(slot.id, slot.common)
        self._context.keep_prefix(slot.id, slot.common)
        return slot.id

    def _free_slots(self, pieces: Sequence[Piece]) -> list[FreeSlot]:
        used = set(range(self._slots)).difference(self._free)
        return [
            FreeSlot(
                slot,
                self._prefixes.tokens(slot),
                self._prefixes.common(slot, pieces),
                age,
                neighbours=len(used & {slot - 1, slot + 1}),
            )
            for age, slot in enumerate(self._free)
        ]

    def begin(self, slot: int, claims: Sequence[Piece]) -> int | None:
        """Put the longest beginning of the prompt that is worth copying into its slot; its length in tokens.

        None while another slot computes that beginning, or it is read from the disk: call again at the next step.
        """
        if self._tier is not None and not self._tier.restore(slot, claims, self._prefixes):
            return None
        own = self._prefixes.tokens(slot)
        match = self._prefixes.match(claims)
        decision = begin_or_wait(own, match, worth_copying=self._costs.worth_copying)
        if not isinstance(decision, Begin):
            return None
        if decision.source is not None:
            self._context.copy(decision.source, slot)
            self._context.keep_prefix(slot, decision.tokens)
            self._prefixes.copy(decision.source, slot, decision.tokens)
        self._prefixes.claim(slot, claims[self._prefixes.depth(slot) :])
        return decision.tokens

    def fulfil(self, slot: int, pieces: int) -> None:
        """The next pieces that the slot claimed are computed."""
        for _ in range(pieces):
            self._prefixes.fulfil(slot)

    def unclaim(self, slot: int) -> None:
        """The slot's prompt is computed."""
        self._prefixes.unclaim(slot)

    def copy_prompt(self, source: int, slot: int, tokens: int) -> None:
        """Put a whole prompt that one slot holds into another."""
        self._context.copy(source, slot)
        self._prefixes.copy(source, slot, tokens)

    def keep_prefix(self, slot: int, tokens: int) -> None:
        """Drop what the slot has beyond these tokens, none of which is a prompt's."""
        self._context.keep_prefix(slot, tokens)

    def held(self, slot: int) -> int:
        """How many tokens other prompts can reuse."""
        return self._prefixes.tokens(slot)

    def hold(self, slot: int, pieces: Sequence[Piece]) -> None:
        """These pieces follow what the slot holds, and can be reused as if they were a prompt's."""
        self._prefixes.hold(slot, pieces)

    def discard(self, slot: int) -> None:
        """After a failed call the slot's contents are unknown: they are never reused."""
        self._prefixes.cut(slot, 0)

    def release(self, slot: int) -> None:
        """The slot is free; it keeps its prompt for the next one that begins like it."""
        self._prefixes.unclaim(slot)
        if not self._reuse:
            self._prefixes.cut(slot, 0)
            self._context.keep_prefix(slot, 0)
        self._free.append(slot)

    def close(self) -> None:
        """No sequence runs any more: what the slots hold is saved where it outlasts them."""
        if self._tier is not None:
            self._tier.close(self._free, self._prefixes)
