"""What a step computes: the running sequences' next tokens and slices of prompts, in as few calls as allowed. Pure."""

import time
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq

from worker.engine.batching.scheduler import PromptRest, came_together, plan_prefill, prefill_budget, spread_prefill
from worker.engine.batching.sequence import Sequence
from worker.engine.model.batch_invariance import Exactness
from worker.engine.model.decode_costs import Costs
from worker.engine.model.decode_run import Run


class BatchPlanner:
    """Reads the sequences, and changes nothing."""

    def __init__(self, costs: Costs, exact: Exactness, room: int) -> None:
        """`exact`: which groupings of tokens into calls leave results unchanged. `room`: most tokens of a call."""
        self._costs = costs
        self._exact = exact
        self._room = room

    def plan(self, running: Seq[Sequence], drafts: Mapping[int, Seq[int]]) -> list[list[Run]]:
        """As few calls as give the same results as one for each run. `drafts`: draft tokens to be checked, by slot."""
        decoding = [
            each.run(drafts.get(each.slot, ())) for each in running if each.completion.pending and each.slot is not None
        ]
        reading = self._prefill_runs(running, len(decoding))
        if self._exact.decode:
            return plan_calls([*decoding, *reading], self._room, joined=True)
        calls = plan_calls(decoding, self._room, joined=False)
        return calls + (plan_calls(reading, self._room, joined=True) if self._exact.slices else [[r] for r in reading])

    def _prefill_runs(self, running: Seq[Sequence], streams: int) -> list[Run]:
        """Of the prompts, by slot; one run for each slice where results depend on how prompts are cut."""
        now = time.monotonic()
        unread = {each.slot: each for each in running if each.in_prefill and each.slot is not None}
        if not unread:
            return []
        prefills = {
            slot: PromptRest(self._slices(each), each.ticket.age(now), each.priority) for slot, each in unread.items()
        }
        budget = prefill_budget(self._costs.decode_seconds(streams + len(unread)) if streams else None)
        at_once = self._exact.slices and not streams and came_together(prefills, self._costs.token_seconds)
        plan = spread_prefill if at_once else plan_prefill
        planned = plan(prefills, self._costs.token_seconds, budget)
        return [run for slot, slices in planned.items() for run in self._prompt_runs(slot, unread[slot], slices)]

    def _prompt_runs(self, slot: int, sequence: Sequence, slices: Seq[int]) -> list[Run]:
        return sequence.prompt.runs(slot, slices, joined=self._exact.slices and not sequence.prompt.scored)

    def _slices(self, sequence: Sequence) -> list[int]:
        """Of a scored prompt one slice in a step: to read its logits takes longer than to compute them."""
        prompt = sequence.prompt
        if prompt.scored:
            return prompt.slices_left[:1]
        return prompt.finer_slices_left() if self._exact.slices else prompt.slices_left


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
