"""What a step computes: the running sequences' next tokens and slices of prompts, in as few calls as allowed. Pure."""

import time
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from worker.engine.batching.scheduler import (
    PromptRest,
    Wait,
    came_together,
    plan_prefill,
    spread_prefill,
    until_awaited,
)
from worker.engine.batching.sequence import Sequence
from worker.engine.model.batch_invariance import Grouping
from worker.engine.model.decode_costs import Costs
from worker.engine.model.decode_run import Run


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What bounds a step."""

    batch_size: int  # most tokens of a call
    ubatch_size: int  # most tokens of a compute graph: more at once are no faster
    prefill_pause: float  # most time for prompts beside streams, in decode steps


class BatchPlanner:
    """Reads the sequences, and changes nothing."""

    def __init__(self, costs: Costs, grouping: Grouping, limits: BatchLimits, *, unified: bool = False) -> None:
        """`unified`: all sequences share one cache, so that llama.cpp computes any tokens in one graph."""
        self._costs = costs
        self._grouping = grouping
        self._limits = limits
        self._unified = unified

    def plan(self, running: Seq[Sequence], drafts: Mapping[int, Seq[int]], waits: Seq[Wait]) -> list[list[Run]]:
        """The calls of a step, next tokens first.

        `drafts`: draft tokens to be checked, by slot. `waits`: of the sequences whose prompts have not begun.
        """
        decoding = [
            each.run(drafts.get(each.slot, ())) for each in running if each.completion.pending and each.slot is not None
        ]
        reading = self._prefill_runs(running, len(decoding), waits)
        room, grouping = self._limits.batch_size, self._grouping
        if grouping.decode and (self._unified or closes_gap(decoding, reading)):
            return plan_calls([*decoding, *reading], room, joined=True)
        calls = plan_calls(decoding, room, joined=grouping.decode)
        return calls + (plan_calls(reading, room, joined=True) if grouping.slices else [[run] for run in reading])

    def _prefill_runs(self, running: Seq[Sequence], streams: int, waits: Seq[Wait]) -> list[Run]:
        """Of the prompts, by slot; one run for each slice where results depend on how prompts are cut."""
        now = time.monotonic()
        unread = {each.slot: each for each in running if each.in_prefill and each.slot is not None}
        if not unread:
            return []
        prefills = {
            slot: PromptRest(self._slices(each, waits), each.ticket.age(now), each.priority)
            for slot, each in unread.items()
        }
        depth = max(each.prompt.done for each in unread.values())
        planned = self._prefill_slices(prefills, streams, depth)
        return [run for slot, slices in planned.items() for run in self._prompt_runs(slot, unread[slot], slices)]

    def _prefill_slices(self, prefills: Mapping[int, PromptRest], streams: int, depth: int) -> dict[int, list[int]]:
        """Alone, prompts are computed in whole micro-batches; beside streams, as much as these may pause for.

        The decode step that counts is the one that the streams will have once the prompts have joined them. Where more
        prompts wait than there are streams, these pause longer in proportion: fewer people wait for more of them.
        """
        rows, token_seconds = self._limits.ubatch_size, self._costs.token_seconds
        if streams:
            step = self._costs.decode_seconds(streams + len(prefills)) or 0.0
            pause = self._limits.prefill_pause * step * max(1.0, len(prefills) / streams)
            rows = self._costs.prompt_rows(pause, rows, depth)
        elif self._grouping.slices and came_together(prefills, token_seconds, rows):
            return spread_prefill(prefills, rows)
        return plan_prefill(prefills, token_seconds, rows)

    def _prompt_runs(self, slot: int, sequence: Sequence, slices: Seq[int]) -> list[Run]:
        return sequence.prompt.runs(slot, slices, joined=self._grouping.slices and not sequence.prompt.scored)

    def _slices(self, sequence: Sequence, waits: Seq[Wait]) -> Seq[int]:
        """Of a scored prompt one slice in a step: to read its logits takes longer than to compute them."""
        prompt = sequence.prompt
        if prompt.scored:
            return prompt.slices_left[:1]
        slices = prompt.finer_slices_left() if self._grouping.slices else prompt.slices_left
        return until_awaited(slices, prompt.done, [wait.tokens for wait in waits if sequence.slot in wait.slots])


def closes_gap(decoding: Seq[Run], reading: Seq[Run]) -> bool:
    """Whether a prompt's slot lies between those of streams.

    llama.cpp computes neighbouring slots in one graph, and of each the same number of tokens: a call of streams and a
    prompt is a graph of one token each and another of the prompt's other tokens. So the prompt has a call of its own,
    except where its token saves the streams a graph.
    """
    slots = {run.slot for run in decoding}
    return bool(slots) and any(min(slots) < run.slot < max(slots) for run in reading if run.slot not in slots)


def plan_calls(runs: Seq[Run], room: int, *, joined: bool) -> list[list[Run]]:
    """The runs by the calls that compute them, none with more than `room` tokens.

    `joined`: a row's result does not depend on the call's other rows, so that all of them may share calls.
    Otherwise only single tokens share calls, and a run of several tokens has calls of its own:

        A  BBB  C  DD   -->  joined: A BBB C DD     else: A C, BBB, DD

    In the order of the slots: llama.cpp computes rows of neighbouring streams at once, and only of those.
    Runs with different adapters share no call.
    """
    in_order = sorted(runs, key=lambda run: run.slot)
    kinds = dict.fromkeys(run.scales for run in in_order)
    return [
        call for kind in kinds for call in _calls([run for run in in_order if run.scales == kind], room, joined=joined)
    ]


def _calls(in_order: Seq[Run], room: int, *, joined: bool) -> list[list[Run]]:
    """The calls of runs with the same adapters."""
    if joined:
        return list(_packed((piece for run in in_order for piece in _pieces(run, room)), room))
    single = [run for run in in_order if len(run) == 1]
    longer = [[piece] for run in in_order if len(run) > 1 for piece in _pieces(run, room)]
    return [*_packed(single, room), *longer]


def _pieces(run: Run, room: int) -> Iterator[Run]:
    """The run, cut where it is longer than a call may be; a part of an image never is."""
    if run.image is not None or len(run) <= room:
        return iter((run,))
    return (run.piece(at, room) for at in range(0, len(run), room))


def _packed(runs: Iterable[Run], room: int) -> Iterator[list[Run]]:
    call: list[Run] = []
    tokens = 0
    for run in runs:
        if call and (run.alone or call[0].alone or tokens + len(run) > room):
            yield call
            call, tokens = [], 0
        call.append(run)
        tokens += len(run)
    if call:
        yield call
