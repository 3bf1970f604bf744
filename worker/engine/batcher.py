"""Continuous batching: schedule, run, collect. One step serves every sequence that runs."""

from collections.abc import Iterable

from atelier.errors import AtelierError, Draining
from worker.engine.context import Context
from worker.engine.interface import Emitted, Failed
from worker.engine.scheduler import Prefill, Slice, Slot, choose_slot, fits_in_cache, next_in_turn, plan_slices
from worker.engine.sequence import Sequence


class Batcher:
    """Owns the slots and the sequences. Used on the engine's thread alone."""

    def __init__(
        self, context: Context, slots: int, grid: int, *, reuse: bool, unified_capacity: int | None = None
    ) -> None:
        """`grid`: tokens of a prompt slice. `unified_capacity`: cells of a cache that all slots share.

        `reuse`: keep prompts in the cache after their sequences; not in a shared one, whose cells others need.
        """
        self._context = context
        self._grid = grid
        self._reuse = reuse
        self._capacity = unified_capacity
        self._free = [Slot(i) for i in range(slots)]
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self._admissions = 0
        self._emitted: list[Emitted] = []

    @property
    def active(self) -> int:
        return len(self._running)

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    def add(self, sequences: Iterable[Sequence]) -> None:
        self._waiting.extend(sequences)

    def step(self) -> list[Emitted]:
        """Compute the next token of every running sequence and some of the waiting prompts."""
        self._drop_cancelled()
        self._admit()
        self._decode()
        for sequence, part in self._plan():
            self._prefill(sequence, part)
        emitted, self._emitted = self._emitted, []
        return emitted

    def abandon(self) -> list[Emitted]:
        """Fail everything that is left."""
        for sequence in [*self._running, *self._waiting]:
            self._fail(sequence, Draining("The model was unloaded."))
        emitted, self._emitted = self._emitted, []
        return emitted

    def _drop_cancelled(self) -> None:
        for sequence in [s for s in (*self._running, *self._waiting) if s.ticket.cancelled]:
            self._remove(sequence)

    def _admit(self) -> None:
        while self._waiting and self._free:
            sequence = self._waiting[self._next_in_turn()]
            reserved = sum(running.budget for running in self._running)
            if not fits_in_cache(reserved, sequence.budget, self._capacity):
                return
            self._waiting.remove(sequence)
            self._place(sequence)

    def _next_in_turn(self) -> int:
        return next_in_turn(
            [waiting.fairness_key for waiting in self._waiting], [running.fairness_key for running in self._running]
        )

    def _place(self, sequence: Sequence) -> None:
        placement = choose_slot(sequence.prompt, self._free, self._grid)
        slot, reused = placement.slot, placement.reused
        self._free.remove(slot)
        self._context.keep_prefix(slot.id, reused)
        slot.cached = slot.cached[:reused]
        self._admissions += 1
        slot.last_used = self._admissions
        sequence.place(slot, reused)
        self._running.append(sequence)

    def _plan(self) -> list[tuple[Sequence, Slice]]:
        unread = [sequence for sequence in self._running if sequence.next_token is None]
        prefills = [Prefill(i, sequence.done, len(sequence.prompt)) for i, sequence in enumerate(unread)]
        return [(unread[part.index], part) for part in plan_slices(prefills, self._grid)]

    def _prefill(self, sequence: Sequence, part: Slice) -> None:
        assert sequence.slot is not None
        tokens = sequence.prompt[part.start : part.end]
        last = part.end == len(sequence.prompt)
        try:
            self._context.decode_prompt(sequence.slot.id, tokens, part.start, "last" if last else "none")
        except AtelierError as error:
            self._fail(sequence, error)
            return
        sequence.done = part.end
        sequence.slot.cached.extend(tokens)
        if last:
            self._sample(sequence, len(tokens) - 1)

    def _decode(self) -> None:
        decoding = [s for s in self._running if s.next_token is not None]
        if not decoding:
            return
        entries = [(s.slot.id, s.next_token, s.position) for s in decoding if s.slot and s.next_token is not None]
        try:
            self._context.decode_next(entries)
        except AtelierError as error:
            for sequence in decoding:
                self._fail(sequence, error)
            return
        for index, sequence in enumerate(decoding):
            self._sample(sequence, index)

    def _sample(self, sequence: Sequence, index: int) -> None:
        try:
            if sequence.matcher is not None:
                sequence.matcher.mask(self._context.logits(index))
            delta, finished = sequence.advance(sequence.sampler.sample(self._context, index))
        except AtelierError as error:
            self._fail(sequence, error)
            return
        source = sequence.ticket.source
        if delta is not None:
            self._emitted.append((source, delta))
        if finished is not None:
            self._emitted.append((source, finished))
            self._remove(sequence)

    def _fail(self, sequence: Sequence, error: AtelierError) -> None:
        """A failed call has no other choices: they go too, at the next step at the latest."""
        if not sequence.ticket.cancelled:
            sequence.ticket.cancelled = True
            self._emitted.append((sequence.ticket.source, Failed(error)))
        if sequence.slot is not None:
            sequence.slot.cached = []
        self._remove(sequence)

    def _remove(self, sequence: Sequence) -> None:
        """Free the sequence's slot; its prompt stays in the cache for the next one that begins so."""
        if sequence.slot is None:
            self._waiting.remove(sequence)
        else:
            self._running.remove(sequence)
            self._release(sequence.slot)
        sequence.close()

    def _release(self, slot: Slot) -> None:
        if not self._reuse:
            slot.cached = []
            self._context.keep_prefix(slot.id, 0)
        self._free.append(slot)
