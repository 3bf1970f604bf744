"""The slots of the KV cache: which are free, what they hold, and how a prompt finds its beginning in one of them."""

from collections.abc import Sequence

import structlog

from atelier.errors import DecodeFailed
from worker.engine.batching.scheduler import Begin, FreeSlot, Wait, begin_or_wait, choose_slot
from worker.engine.cache.cache_tier import CacheTier
from worker.engine.cache.prefix_tree import Piece
from worker.engine.cache.slot_contents import SlotContents
from worker.engine.model.context import Context
from worker.engine.model.decode_costs import Costs
from worker.engine.prompt.checkpoint_places import APART, places_after

_log = structlog.get_logger(__name__)


class KVCacheManager:
    """Owns the slots. Used on the engine's thread alone."""

    def __init__(
        self,
        context: Context,
        slots: int,
        costs: Costs,
        *,
        reuse: bool,
        contents: SlotContents,
        tier: CacheTier | None = None,
    ) -> None:
        """`reuse`: slots keep what they hold after their sequences. `tier`: saves what slots lose."""
        self._context = context
        self._slots = slots
        self._costs = costs
        self._reuse = reuse
        self._contents = contents
        self._tier = tier
        self._free = list(range(slots))  # the least recently used first
        self._awaiting: set[int] = set()  # slots whose prompts wait for what another computes

    @property
    def tier(self) -> CacheTier | None:
        return self._tier

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def has_free(self) -> bool:
        return bool(self._free)

    def known(self, claims: Sequence[Piece]) -> int:
        """How many tokens of a prompt it can continue from in some slot."""
        return self._contents.match(claims).held

    def take(self, claims: Sequence[Piece]) -> int:
        """The free slot that is cheapest for this prompt, which holds no more than what it shares with the prompt."""
        slot = choose_slot(
            self._free_slots(claims), copy_tokens=self._costs.worth_copying, split_tokens=self._costs.split_tokens
        )
        self._free.remove(slot.id)
        if self._tier is not None:
            self._tier.save(slot.id, self._contents, claims)
        self._contents.shorten(slot.id, claims)
        return slot.id

    def _free_slots(self, claims: Sequence[Piece]) -> list[FreeSlot]:
        used = set(range(self._slots)).difference(self._free)
        reusable = self._contents.reusable(claims)
        return [
            FreeSlot(
                slot,
                self._contents.tokens(slot),
                reusable.get(slot, 0),
                age,
                neighbours=len(used & {slot - 1, slot + 1}),
            )
            for age, slot in enumerate(self._free)
        ]

    def begin(self, slot: int, claims: Sequence[Piece], places: Sequence[int]) -> int | Wait:
        """Put the longest beginning of the prompt that is worth copying into its slot; its length in tokens.

        Wait while another slot computes that beginning, or it is read from the disk: call again at the next step.
        `places`: where the prompt has checkpoints.
        """
        if self._tier is not None and not self._tier.restore(slot, claims, self._contents):
            return Wait()
        own, match = self._contents.own_and_match(slot, claims)
        worth_waiting = 1 if slot in self._awaiting else self._costs.worth_waiting  # then to the end
        decision = begin_or_wait(own, match, worth_copying=self._costs.worth_copying, worth_waiting=worth_waiting)
        if isinstance(decision, Wait):
            self._awaiting.add(slot)
            return decision
        self._awaiting.discard(slot)
        tokens = self._put(slot, decision)
        kept = places_after(places, tokens)
        if tokens and decision.source is None and any(tokens < place < tokens + APART for place in places):
            self._contents.checkpoint(slot, tokens)  # in place of the next one, for which a call would end early
        self._contents.claim(slot, claims[self._contents.depth(slot) :], kept)
        return tokens

    def _put(self, slot: int, decision: Begin) -> int:
        """Begin as decided, or with nothing if that fails; how many tokens the slot holds."""
        try:
            if decision.source is None:
                self._contents.resume(slot, decision.tokens)
            else:
                self._contents.copy(decision.source, slot, decision.tokens)
        except DecodeFailed as error:
            _log.warning("prefix_not_reused", tokens=decision.tokens, reason=str(error))
            self._context.keep_prefix(slot, 0)
            return 0
        return decision.tokens

    def fulfil(self, slot: int, pieces: int) -> None:
        """The next pieces that the slot claimed are computed."""
        for _ in range(pieces):
            self._contents.fulfil(slot)

    def checkpoint(self, slot: int, tokens: int) -> None:
        """The slot's prompt is computed up to one of its places."""
        self._contents.checkpoint(slot, tokens)

    def unclaim(self, slot: int) -> None:
        """The slot's prompt is computed."""
        self._contents.unclaim(slot)

    def copy_prompt(self, source: int, slot: int, tokens: int) -> bool:
        """Put a whole prompt that one slot holds into another; whether that succeeded."""
        return self._put(slot, Begin(tokens, source)) == tokens

    def keep_prefix(self, slot: int, tokens: int) -> None:
        """Drop what the slot has beyond these tokens, none of which is a prompt's."""
        self._context.keep_prefix(slot, tokens)

    def held(self, slot: int) -> int:
        """How many tokens other prompts can reuse."""
        return self._contents.tokens(slot)

    def hold(self, slot: int, pieces: Sequence[Piece], tail: Piece) -> None:
        """These pieces and the tail follow what the slot holds, and can be reused as if they were a prompt's."""
        self._contents.hold(slot, pieces, tail)

    def discard(self, slot: int) -> None:
        """After a failed call the slot's contents are unknown: they are never reused."""
        self._contents.empty(slot)

    def release(self, slot: int) -> None:
        """The slot is free; it keeps its prompt for the next one that begins like it."""
        self._awaiting.discard(slot)
        self._contents.unclaim(slot)
        if not self._reuse:
            self._contents.empty(slot)
            self._context.keep_prefix(slot, 0)
        self._free.append(slot)

    def close(self) -> None:
        """No sequence runs any more: what the slots hold is saved where it outlasts them."""
        if self._tier is not None:
            self._tier.close(self._free, self._contents)
