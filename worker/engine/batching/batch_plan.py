"""How what a step computes of each sequence goes into llama_decode calls. Pure."""

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq

from worker.engine.model.decode_run import Run


def plan_calls(runs: Seq[Run], room: int, *, joined: bool) -> list[list[Run]]:
    """The runs by the calls that compute them, none with more than `room` tokens.

    `joined`: a row's result does not depend on the call's other rows, so that they may all share calls.
    Otherwise only single tokens do, and a run of several has calls of its own:

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
    """Of runs with the same adapters."""
    if joined:
        return list(_packed((piece for run in in_order for piece in _pieces(run, room)), room))
    single = [run for run in in_order if len(run) == 1]
    longer = [[piece] for run in in_order if len(run) > 1 for piece in _pieces(run, room)]
    return [*_packed(single, room), *longer]


def _pieces(run: Run, room: int) -> Iterator[Run]:
    """The run, cut where it is longer than a call may be; a part of an image never is."""
    if run.image is not None:
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
