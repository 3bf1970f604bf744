"""Continuous batching: one step serves every sequence that runs. It admits, plans, decodes, samples and emits."""

import time
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from contextlib import AbstractContextManager, contextmanager, nullcontext

from atelier.errors import AtelierError, Draining
from atelier.generation_types import Finished
from worker.engine.batching.batch_plan import BatchLimits, BatchPlanner
from worker.engine.batching.fairness import next_in_turn
from worker.engine.batching.kv_cache_manager import KVCacheManager
from worker.engine.batching.running_call import RunningCall
from worker.engine.batching.scheduler import Wait, fits_in_cache, gathering_seconds
from worker.engine.batching.sequence import Sequence, cancel_overdue
from worker.engine.cache.cache_tier import CacheTier
from worker.engine.cache.checkpoints import Checkpoints
from worker.engine.cache.slot_contents import SlotContents
from worker.engine.interface import Emitted, Event, Failed, SequenceFigures
from worker.engine.model.batch_invariance import SEPARATE, Grouping
from worker.engine.model.context import Context, DecodeInterrupted
from worker.engine.model.decode_costs import Costs
from worker.engine.model.decode_run import Run
from worker.engine.model.graph_split import graph_rows
from worker.engine.speculation.speculation import Speculation


class Batcher:
    """Owns the sequences, and their slots through the cache manager. Used on the engine's thread alone."""

    def __init__(
        self,
        context: Context,
        slots: int,
        costs: Costs,
        *,
        reuse: bool,
        grouping: Grouping = SEPARATE,
        limits: BatchLimits,
        unified_capacity: int | None = None,
        speculation: Speculation | None = None,
        checkpoints: Checkpoints | None = None,
        tier: CacheTier | None = None,
    ) -> None:
        """`unified_capacity`: cells of a cache that all slots share.

        `reuse`: slots keep prompts after their sequences; not in a shared cache, whose cells others need.
        `checkpoints`: None where sequences can be cut at any token. `tier`: saves what slots lose.
        """
        self._context = context
        self.running_call = RunningCall(context.interrupt)
        self._costs = costs
        self._keep_decoded = reuse and grouping.decode
        self._capacity = unified_capacity
        self._speculation = speculation
        contents = SlotContents(context, checkpoints, divisible=grouping.decode)
        self._cache = KVCacheManager(context, slots, costs, reuse=reuse, contents=contents, tier=tier)
        self._planner = BatchPlanner(costs, grouping, limits, unified=unified_capacity is not None)
        self._waiting: list[Sequence] = []
        self._added_at = 0.0  # when the last of them were
        self._running: list[Sequence] = []
        self._waits: Seq[Wait] = ()  # of running sequences whose prompts have not begun
        self._emitted: list[Emitted] = []
        self._in_step: Seq[Sequence] = ()  # running and waiting, before the calls of the last step

    @property
    def active(self) -> int:
        return len(self._running)

    @property
    def tier(self) -> CacheTier | None:
        """What saves the states that slots lose."""
        return self._cache.tier

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    def figures(self, now: float) -> list[SequenceFigures]:
        """Of the running sequences, then of the waiting ones."""
        return [sequence.figures(now) for sequence in (*self._running, *self._waiting)]

    def figures_in_step(self, now: float) -> list[SequenceFigures]:
        """The same of the step in progress; from any thread, as it only reads numbers that may be one token old."""
        return [sequence.figures(now) for sequence in self._in_step]

    def add(self, sequences: Iterable[Sequence]) -> None:
        self._waiting.extend(sequences)
        self._added_at = time.monotonic()

    def gathering(self, *, expected: bool) -> float:
        """Seconds to wait before the next step, for prompts that arrive with those that wait.

        `expected`: some have been submitted and are not added yet.
        """
        if self._running or not 0 < len(self._waiting) < self._cache.slots:
            return 0.0
        now = time.monotonic()
        prompts = [sequence.prompt for sequence in self._waiting]
        seconds = self._costs.token_seconds * sum(len(each) - self._cache.known(each.claims) for each in prompts)
        oldest = max(sequence.ticket.age(now) for sequence in self._waiting)
        newest = now - self._added_at
        return max(0.0, gathering_seconds(seconds, len(prompts), oldest, newest, expected=expected))

    def step(self) -> list[Emitted]:
        """Compute the next token of every running sequence and some of the waiting prompts."""
        self._drop_cancelled()
        self._admit()
        calls = self._plan()
        self._in_step = (*self._running, *self._waiting)
        slots = {_slot(sequence): sequence for sequence in self._running}
        for call in calls:
            # A run whose first piece failed has no second.
            self._decode([(slots[run.slot], run) for run in call if slots[run.slot].slot is not None])
        return self._take_emitted()

    def abandon(self) -> list[Emitted]:
        """Fail every sequence that is left."""
        for sequence in [*self._running, *self._waiting]:
            self._fail(sequence, Draining("The model was unloaded."))
        return self._take_emitted()

    def close(self) -> None:
        self._cache.close()

    # Admit.

    def _drop_cancelled(self) -> None:
        everyone = [*self._running, *self._waiting]
        self._emitted += cancel_overdue((sequence.ticket for sequence in everyone), time.monotonic())
        for sequence in everyone:
            if sequence.ticket.cancelled:
                self._remove(sequence)

    def _admit(self) -> None:
        """Give free slots to the sequences whose turn it is, and begin the prompts whose beginnings are there."""
        while self._waiting and self._cache.has_free:
            sequence = self._waiting[self._next_in_turn()]
            reserved = sum(running.budget for running in self._running)
            if not fits_in_cache(reserved, sequence.budget, self._capacity):
                break
            self._waiting.remove(sequence)
            sequence.place(self._cache.take(sequence.prompt.claims))
            self._running.append(sequence)
        self._waits = [wait for sequence in self._running if not sequence.begun and (wait := self._begin(sequence))]

    def _begin(self, sequence: Sequence) -> Wait | None:
        begun = self._cache.begin(_slot(sequence), sequence.prompt.claims, sequence.prompt.places)
        if isinstance(begun, Wait):
            return begun
        sequence.begin(begun)
        return None

    def _next_in_turn(self) -> int:
        now = time.monotonic()
        return next_in_turn(
            [waiting.bid(now) for waiting in self._waiting], [running.fairness_key for running in self._running]
        )

    # Plan.

    def _plan(self) -> list[list[Run]]:
        drafts = self._drafts()  # first: what fails here is not planned
        return self._planner.plan(self._running, drafts, self._waits)

    def _drafts(self) -> dict[int, list[int]]:
        """Draft tokens to follow the pending tokens, by slot."""
        if self._speculation is not None:
            decoding = [sequence for sequence in self._running if sequence.completion.pending]
            with self._failing([sequence for sequence in decoding if sequence.draft_room]):
                return self._speculation.drafts(decoding)
        return {}

    # Decode.

    def _decode(self, runs: list[tuple[Sequence, Run]]) -> None:
        """Compute the runs in one call; then sample for the sequences that need their next token."""
        if not runs:
            return
        decoded = sum(len(run) for sequence, run in runs if sequence.completion.pending)
        read = sum(len(run) for _, run in runs) - decoded
        if not self._compute(runs, decoded, read):
            return
        first = 0
        for sequence, run in runs:
            if sequence.slot is None:
                pass  # it failed
            elif sequence.completion.pending:
                self._sample_run(sequence, run, first)
            else:
                self._note_prefill(sequence, run, first)
            first += len(run)

    def _compute(self, runs: list[tuple[Sequence, Run]], decoded: int, read: int) -> bool:
        """Whether the call was computed: not if all of its sequences were cancelled meanwhile."""
        sequences = [sequence for sequence, _ in runs]
        try:
            with (
                self._failing(sequences),
                self.running_call.computing([sequence.ticket for sequence in sequences]),
                self._measured(runs, decoded, read),
            ):
                self._context.decode_runs([run for _, run in runs])
        except DecodeInterrupted:
            return False
        return True

    def _measured(self, runs: Seq[tuple[Sequence, Run]], decoded: int, read: int) -> AbstractContextManager[None]:
        """Of streams only a call that is one graph: the time of several says nothing about one."""
        if not read and not self._is_one_graph(runs):
            return nullcontext()
        return self._costs.call(decoded, read, max(run.start for _, run in runs))

    def _is_one_graph(self, runs: Seq[tuple[Sequence, Run]]) -> bool:
        slots, rows = [run.slot for _, run in runs], [len(run) for _, run in runs]
        return len(graph_rows(slots, rows, unified=self._capacity is not None)) == 1

    def _note_prefill(self, sequence: Sequence, run: Run, first: int) -> None:
        """A part of the prompt is computed, whose tokens are in the last call from `first` on."""
        prompt = sequence.prompt
        if sequence.echo is not None and sequence.echo.scored:
            rows = [self._context.logits(first + at) for at in range(len(run))]
            self._emit(sequence, sequence.echo.score(run.start, rows))
        self._cache.fulfil(_slot(sequence), prompt.advance(len(run)))
        if prompt.done in prompt.places:
            self._cache.checkpoint(_slot(sequence), prompt.done)
        self._report_progress(sequence)
        if prompt.done == len(prompt):
            self._finish_prefill(sequence, first + len(run) - 1)

    def _finish_prefill(self, sequence: Sequence, index: int) -> None:
        """The first token, of this sequence and of all that wait with the very same prompt."""
        slot = _slot(sequence)
        self._cache.unclaim(slot)
        waiting = [other for other in self._running if not other.begun and other.prompt.is_twin_of(sequence.prompt)]
        twins = [twin for twin in waiting if self._cache.copy_prompt(slot, _slot(twin), len(twin.prompt))]
        for twin in twins:
            twin.begin(len(twin.prompt))
            self._report_progress(twin)
        logits = self._context.logits(index)
        untouched = logits.copy() if twins else logits
        for each in (sequence, *twins):
            logits[:] = untouched  # sampling changes them in place
            self._begin_completion(each, index)

    # Sample.

    def _begin_completion(self, sequence: Sequence, index: int) -> None:
        """Return the prompt where that is requested; draw the first token if there is to be one."""
        if sequence.echo is not None and not sequence.echo.scored:
            self._emit(sequence, sequence.echo.whole())
        if sequence.completion.limit:
            self._sample(sequence, index)
        else:
            self._finish(sequence, sequence.finish_without_tokens())

    def _sample_run(self, sequence: Sequence, run: Run, first: int) -> None:
        """Sample what follows the run, whose tokens are in the last call from `first` on.

        Draft tokens are accepted as long as sampling agrees with them.
        """
        drafted = max(0, len(run) - run.silent - 1)
        sequence.drafted += drafted
        at = run.silent
        self._sample(sequence, first + at)
        while sequence.slot is not None and _begins(run.tokens[at + 1 :], sequence.completion.pending):
            accepted = len(sequence.completion.pending)  # the sampled token, and those that a constraint forces
            sequence.accepted += accepted
            at += accepted
            self._sample(sequence, first + at)
        if drafted and sequence.slot is not None:
            self._context.keep_prefix(sequence.slot, sequence.position)

    def _sample(self, sequence: Sequence, index: int) -> None:
        """Draw the next token from the logits of the last call's token `index`."""
        with self._failing([sequence]):
            deltas, finished = sequence.sample(self._context, index)
            source = sequence.ticket.source
            self._emitted += [(source, delta) for delta in deltas]
            if finished is not None:
                self._finish(sequence, finished)

    # Emit, and end.

    def _emit(self, sequence: Sequence, event: Event) -> None:
        self._emitted.append((sequence.ticket.source, event))

    def _report_progress(self, sequence: Sequence) -> None:
        if sequence.wants_progress:
            self._emit(sequence, sequence.progress())

    def _take_emitted(self) -> list[Emitted]:
        emitted, self._emitted = self._emitted, []
        return emitted

    def _finish(self, sequence: Sequence, finished: Finished) -> None:
        """What decoding computed serves the conversation's next prompt, if prefilling it would give the same."""
        self._emit(sequence, finished)
        if self._keep_decoded and sequence.slot is not None:
            self._cache.hold(sequence.slot, *sequence.blocks(self._cache.held(sequence.slot)))
        self._remove(sequence)

    @contextmanager
    def _failing(self, sequences: list[Sequence]) -> Iterator[None]:
        """An error in the block ends these sequences, and not the thread."""
        try:
            yield
        except AtelierError as error:
            for sequence in sequences:
                self._fail(sequence, error)

    def _fail(self, sequence: Sequence, error: AtelierError) -> None:
        """The call's other choices end too, at the next step at the latest."""
        if not sequence.ticket.cancelled:
            sequence.ticket.cancelled = True
            self._emit(sequence, Failed(error))
        if sequence.slot is not None:
            self._cache.discard(sequence.slot)
        self._remove(sequence)

    def _remove(self, sequence: Sequence) -> None:
        if (slot := sequence.slot) is None:
            self._waiting.remove(sequence)
        else:
            self._running.remove(sequence)
            sequence.slot = None
            if self._speculation is not None:
                self._speculation.forget(slot)
            self._cache.release(slot)
        sequence.close()


def _begins(drafts: Seq[int], tokens: Seq[int]) -> bool:
    return list(drafts[: len(tokens)]) == list(tokens)


def _slot(sequence: Sequence) -> int:
    assert sequence.slot is not None
    return sequence.slot
