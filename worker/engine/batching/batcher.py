"""Continuous batching: admit, decode, prefill. One step serves every sequence that runs."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from atelier.errors import AtelierError, Draining
from worker.engine.batching.batch_plan import plan_calls
from worker.engine.batching.fairness import next_in_turn
from worker.engine.batching.scheduler import (
    Begin,
    FreeSlot,
    Prefill,
    begin_or_wait,
    came_together,
    choose_slot,
    fits_in_cache,
    plan_prefill,
    prefill_budget,
    spread_prefill,
)
from worker.engine.batching.sequence import Sequence
from worker.engine.batching.ticket import cancel_overdue
from worker.engine.cache.cache_tier import CacheTier
from worker.engine.cache.prefix_tree import PrefixTree
from worker.engine.interface import Emitted, Failed, Finished, SequenceFigures
from worker.engine.model.batch_invariance import NOT_EXACT, Exactness
from worker.engine.model.context import Context
from worker.engine.model.decode_costs import Costs
from worker.engine.model.decode_run import Run
from worker.engine.speculation.drafting import Speculation


class Batcher:
    """Owns the slots and the sequences. Used on the engine's thread alone."""

    def __init__(
        self,
        context: Context,
        slots: int,
        costs: Costs,
        *,
        reuse: bool,
        exact: Exactness = NOT_EXACT,
        batch_size: int = 2048,
        unified_capacity: int | None = None,
        speculation: Speculation | None = None,
        tier: CacheTier | None = None,
    ) -> None:
        """`unified_capacity`: cells of a cache that all slots share. `batch_size`: most tokens of a call.

        `reuse`: keep prompts in the cache after their sequences; not in a shared one, whose cells others need.
        `tier`: where what slots lose is saved.
        """
        self._context = context
        self._costs = costs
        self._reuse = reuse
        self._exact = exact
        self._room = max(batch_size, slots)  # a token of each must fit into a call
        self._keep_decoded = reuse and exact.decode
        self._capacity = unified_capacity
        self._speculation = speculation
        self._tier = tier
        self._prefixes = PrefixTree()
        self._free = list(range(slots))  # the one unused for longest first
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self._emitted: list[Emitted] = []

    @property
    def active(self) -> int:
        return len(self._running)

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    def figures(self, now: float) -> list[SequenceFigures]:
        """Of those that run, then of those that wait."""
        return [sequence.figures(now) for sequence in (*self._running, *self._waiting)]

    def add(self, sequences: Iterable[Sequence]) -> None:
        self._waiting.extend(sequences)

    def step(self) -> list[Emitted]:
        """Compute the next token of every running sequence and some of the waiting prompts."""
        self._drop_cancelled()
        self._admit()
        slots = {_slot(sequence): sequence for sequence in self._running}
        for call in self._calls():
            # A run whose first piece failed has no second.
            self._call([(slots[run.slot], run) for run in call if slots[run.slot].slot is not None])
        emitted, self._emitted = self._emitted, []
        return emitted

    def abandon(self) -> list[Emitted]:
        """Fail everything that is left."""
        for sequence in [*self._running, *self._waiting]:
            self._fail(sequence, Draining("The model was unloaded."))
        emitted, self._emitted = self._emitted, []
        return emitted

    def close(self) -> None:
        """Nothing runs any more: what the slots hold is saved where it outlasts them."""
        if self._tier is not None:
            self._tier.close(self._free, self._prefixes)

    def _drop_cancelled(self) -> None:
        """Those that nobody waits for any more, or may."""
        everyone = [*self._running, *self._waiting]
        self._emitted += cancel_overdue((sequence.ticket for sequence in everyone), time.monotonic())
        for sequence in [each for each in everyone if each.ticket.cancelled]:
            self._remove(sequence)

    # Admission: a slot for the next in turn.

    def _admit(self) -> None:
        while self._waiting and self._free:
            sequence = self._waiting[self._next_in_turn()]
            reserved = sum(running.budget for running in self._running)
            if not fits_in_cache(reserved, sequence.budget, self._capacity):
                return
            self._waiting.remove(sequence)
            self._place(sequence)

    def _next_in_turn(self) -> int:
        now = time.monotonic()
        return next_in_turn(
            [waiting.bid(now) for waiting in self._waiting], [running.fairness_key for running in self._running]
        )

    def _place(self, sequence: Sequence) -> None:
        used = {_slot(running) for running in self._running}
        free = [self._free_slot(age, number, sequence, used) for age, number in enumerate(self._free)]
        slot = choose_slot(free, copy_tokens=self._costs.worth_copying, split_tokens=self._costs.split_tokens)
        self._free.remove(slot.id)
        if self._tier is not None:
            self._tier.save(slot.id, self._prefixes, sequence.claims)
        self._prefixes.cut(slot.id, slot.common)
        self._context.keep_prefix(slot.id, slot.common)
        sequence.place(slot.id)
        self._running.append(sequence)

    def _free_slot(self, last_used: int, number: int, sequence: Sequence, used: set[int]) -> FreeSlot:
        common = self._prefixes.common(number, sequence.pieces)
        neighbours = len(used & {number - 1, number + 1})
        return FreeSlot(number, self._prefixes.tokens(number), common, last_used, neighbours)

    # What a step computes: everybody's next tokens, and slices of prompts.

    def _calls(self) -> list[list[Run]]:
        """As few calls as give the same results as one for each run."""
        for sequence in self._running:
            if not sequence.begun:
                self._begin(sequence)
        decoding, reading = self._decode_runs(), self._prefill_runs()
        if self._exact.decode:
            return plan_calls([*decoding, *reading], self._room, joined=True)
        calls = plan_calls(decoding, self._room, joined=False)
        return calls + (plan_calls(reading, self._room, joined=True) if self._exact.slices else [[r] for r in reading])

    def _call(self, runs: list[tuple[Sequence, Run]]) -> None:
        """Compute the runs; then sample for those that have come to their next token."""
        if not runs:
            return
        decoded = sum(len(run) for sequence, run in runs if sequence.pending)
        read = sum(len(run) for _, run in runs) - decoded
        with self._failing([sequence for sequence, _ in runs]), self._costs.call(decoded, read):
            self._context.decode_runs([run for _, run in runs])
        first = 0
        for sequence, run in runs:
            if sequence.slot is None:
                pass  # it failed
            elif sequence.pending:
                self._take(sequence, run, first)
            else:
                self._read(sequence, run, first)
            first += len(run)

    # Prefill.

    def _prefill_runs(self) -> list[Run]:
        """Of the prompts, by slot: each slice where it matters how they are cut."""
        now = time.monotonic()
        unread = {_slot(sequence): sequence for sequence in self._running if sequence.in_prefill}
        prefills = {
            slot: Prefill(self._slices(each), each.ticket.age(now), each.priority) for slot, each in unread.items()
        }
        streams = sum(1 for sequence in self._running if sequence.pending)
        budget = prefill_budget(self._costs.decode_seconds(streams + len(unread)) if streams else None)
        at_once = self._exact.slices and not streams and came_together(prefills, self._costs.token_seconds)
        plan = spread_prefill if at_once else plan_prefill
        planned = plan(prefills, self._costs.token_seconds, budget)
        return [run for slot, slices in planned.items() for run in self._prompt_runs(unread[slot], slices)]

    def _prompt_runs(self, sequence: Sequence, slices: list[int]) -> list[Run]:
        return sequence.prompt_runs(slices, joined=self._exact.slices and not sequence.rates_prompt)

    def _begin(self, sequence: Sequence) -> None:
        slot = _slot(sequence)
        if self._tier is not None and not self._tier.restore(slot, sequence.claims, self._prefixes):
            return
        own = self._prefixes.tokens(slot)
        match = self._prefixes.match(sequence.claims)
        decision = begin_or_wait(own, match, worth_copying=self._costs.worth_copying)
        if not isinstance(decision, Begin):
            return
        if decision.source is not None:
            self._context.copy(decision.source, slot)
            self._context.keep_prefix(slot, decision.tokens)
            self._prefixes.copy(decision.source, slot, decision.tokens)
        sequence.begin(decision.tokens)
        self._prefixes.claim(slot, sequence.claims[self._prefixes.depth(slot) :])

    def _slices(self, sequence: Sequence) -> list[int]:
        """Where the prompt is rated, one in a step: to read its logits takes longer than to compute them."""
        if sequence.rates_prompt:
            return sequence.slices_left[:1]
        return sequence.finer_slices_left() if self._exact.slices else sequence.slices_left

    def _read(self, sequence: Sequence, run: Run, first: int) -> None:
        """The run, whose tokens are in the last call from `first` on, was a part of the prompt."""
        if sequence.rates_prompt:
            rows = [self._context.logits(first + at) for at in range(len(run))]
            self._emitted.append((sequence.ticket.source, sequence.rate(run.start, rows)))
        self._note_computed(sequence, len(run))
        if sequence.done == len(sequence.prompt):
            self._finish_prefill(sequence, first + len(run) - 1)

    def _note_computed(self, sequence: Sequence, tokens: int) -> None:
        """The cache holds so many more tokens of the prompt."""
        for end in sequence.slices[: len(sequence.pieces)]:
            if sequence.done < end <= sequence.done + tokens:
                self._prefixes.fulfil(_slot(sequence))
        sequence.done += tokens
        self._report(sequence)

    def _report(self, sequence: Sequence) -> None:
        if sequence.wants_progress:
            self._emitted.append((sequence.ticket.source, sequence.progress()))

    def _finish_prefill(self, sequence: Sequence, index: int) -> None:
        """The first token, of this sequence and of all that wait with the very same prompt."""
        slot = _slot(sequence)
        self._prefixes.unclaim(slot)
        twins = [other for other in self._running if not other.begun and other.is_twin_of(sequence)]
        for twin in twins:
            self._context.copy(slot, _slot(twin))
            self._prefixes.copy(slot, _slot(twin), len(twin.prompt))
            twin.begin(len(twin.prompt))
            self._report(twin)
        logits = self._context.logits(index)
        untouched = logits.copy() if twins else logits
        for each in (sequence, *twins):
            logits[:] = untouched
            self._begin_completion(each, index)

    def _begin_completion(self, sequence: Sequence, index: int) -> None:
        """The prompt is told where that is wanted; the first token is drawn if there is to be one."""
        if (echoed := sequence.echo()) is not None:
            self._emitted.append((sequence.ticket.source, echoed))
        if sequence.limit:
            self._sample(sequence, index)
        else:
            self._finish(sequence, sequence.end_unpredicted())

    # Decode: the next token, with what a constraint leaves no choice about, and guesses.

    def _decode_runs(self) -> list[Run]:
        decoding = [sequence for sequence in self._running if sequence.pending]
        guesses = self._guesses(decoding)
        return [sequence.run(guesses.get(_slot(sequence), [])) for sequence in decoding if sequence.slot is not None]

    def _guesses(self, decoding: list[Sequence]) -> dict[int, list[int]]:
        """Guesses at what follows the pending tokens, by slot."""
        if self._speculation is not None:
            with self._failing([sequence for sequence in decoding if sequence.draft_room]):
                return self._speculation.drafts(decoding)
        return {}

    def _take(self, sequence: Sequence, run: Run, first: int) -> None:
        """Sample what follows the run, whose tokens are in the last call from `first` on.

        Guesses hold as long as sampling agrees with them.
        """
        guessed = len(run) - run.silent - 1
        sequence.drafted += max(0, guessed)
        for at in range(run.silent, len(run)):
            sequence.accepted += at > run.silent
            self._sample(sequence, first + at)
            if sequence.slot is None or sequence.pending != run.tokens[at + 1 : at + 2]:
                break
        if guessed > 0 and sequence.slot is not None:
            self._context.keep_prefix(sequence.slot, sequence.position)

    def _sample(self, sequence: Sequence, index: int) -> None:
        """Draw the next token from the logits of the last call's token `index`."""
        with self._failing([sequence]):
            logits = self._context.logits(index)
            raw = logits.copy() if sequence.wants_logprobs else None
            if sequence.matcher is not None:
                sequence.matcher.mask(logits)
            token = sequence.sampler.sample(self._context, index)
            logprob = sequence.logprob(raw, token) if raw is not None else None
            deltas, finished = sequence.take(token, logprob)
            source = sequence.ticket.source
            self._emitted += [(source, delta) for delta in deltas]
            if finished is not None:
                self._finish(sequence, finished)

    # The end of a sequence.

    def _finish(self, sequence: Sequence, finished: Finished) -> None:
        self._emitted.append((sequence.ticket.source, finished))
        self._keep_completion(sequence)
        self._remove(sequence)

    def _keep_completion(self, sequence: Sequence) -> None:
        """What decoding computed serves the conversation's next prompt, if computing it as a prompt gives the same."""
        if self._keep_decoded and sequence.slot is not None:
            held = self._prefixes.tokens(sequence.slot)
            self._prefixes.hold(sequence.slot, sequence.blocks(held))

    @contextmanager
    def _failing(self, sequences: list[Sequence]) -> Iterator[None]:
        """What goes wrong in the block ends these sequences, and not the thread."""
        try:
            yield
        except AtelierError as error:
            for sequence in sequences:
                self._fail(sequence, error)

    def _fail(self, sequence: Sequence, error: AtelierError) -> None:
        """A failed call has no other choices: they go too, at the next step at the latest."""
        if not sequence.ticket.cancelled:
            sequence.ticket.cancelled = True
            self._emitted.append((sequence.ticket.source, Failed(error)))
        if sequence.slot is not None:
            self._prefixes.cut(sequence.slot, 0)
        self._remove(sequence)

    def _remove(self, sequence: Sequence) -> None:
        """Free the sequence's slot; its prompt stays in the cache for the next one that begins so."""
        if sequence.slot is None:
            self._waiting.remove(sequence)
        else:
            self._running.remove(sequence)
            self._release(sequence.slot)
            sequence.slot = None
        sequence.close()

    def _release(self, slot: int) -> None:
        self._prefixes.unclaim(slot)
        if self._speculation is not None:
            self._speculation.drafter.forget(slot)
        if not self._reuse:
            self._prefixes.cut(slot, 0)
            self._context.keep_prefix(slot, 0)
        self._free.append(slot)


def _slot(sequence: Sequence) -> int:
    assert sequence.slot is not None
    return sequence.slot
