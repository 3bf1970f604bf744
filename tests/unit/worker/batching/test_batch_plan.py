"""How the tokens to decode are grouped into calls."""

from collections import defaultdict
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.batching.batch_plan import plan_calls
from worker.engine.model.decode_run import Run

lengths = st.dictionaries(st.integers(0, 9), st.tuples(st.integers(1, 20), st.integers(0, 19)), max_size=8)


def runs_of(wanted: dict[int, tuple[int, int]]) -> list[Run]:
    """For each slot: the number of tokens, and how many are without logits; the last one always has them."""
    return [
        Run(slot, [slot * 100 + at for at in range(length)], 7 * slot, min(silent, length - 1))
        for slot, (length, silent) in wanted.items()
    ]


def shape(calls: list[list[Run]]) -> list[list[tuple[int, int]]]:
    """Slots and numbers of tokens, call by call."""
    return [[(run.slot, len(run)) for run in call] for call in calls]


def test_where_batching_does_not_change_results_all_runs_share_calls_in_slot_order() -> None:
    wanted = {3: (1, 0), 0: (5, 0), 2: (3, 2)}
    assert shape(plan_calls(runs_of(wanted), 32, joined=True)) == [[(0, 5), (2, 3), (3, 1)]]


def test_otherwise_single_tokens_share_a_call_and_longer_runs_have_separate_ones() -> None:
    wanted = {3: (1, 0), 0: (5, 0), 2: (3, 2), 1: (1, 0)}
    assert shape(plan_calls(runs_of(wanted), 32, joined=False)) == [[(1, 1), (3, 1)], [(0, 5)], [(2, 3)]]


@given(wanted=lengths, kinds=st.lists(st.sampled_from([(), (0.5,), (1.0,)]), min_size=8), joined=st.booleans())
def test_only_runs_with_the_same_adapters_share_a_call(
    wanted: dict[int, tuple[int, int]], kinds: list[tuple[float, ...]], joined: bool
) -> None:
    runs = [replace(run, scales=scales) for run, scales in zip(runs_of(wanted), kinds, strict=False)]
    calls = plan_calls(runs, 24, joined=joined)
    for kind in {run.scales for run in runs}:
        alone = plan_calls([run for run in runs if run.scales == kind], 24, joined=joined)
        assert [call for call in calls if call[0].scales == kind] == alone
    assert all(len({run.scales for run in call}) == 1 for call in calls)


def test_no_tokens_need_no_call() -> None:
    assert plan_calls([], 32, joined=True) == plan_calls([], 32, joined=False) == []


@given(wanted=lengths, room=st.integers(1, 24), joined=st.booleans())
def test_every_token_is_computed_once_in_order_and_no_call_is_too_large(
    wanted: dict[int, tuple[int, int]], room: int, joined: bool
) -> None:
    runs = runs_of(wanted)
    computed: dict[int, list[tuple[int, int, bool]]] = defaultdict(list)
    for call in plan_calls(runs, room, joined=joined):
        assert 0 < sum(map(len, call)) <= room
        for run in call:
            computed[run.slot] += [(run.start + at, token, at >= run.silent) for at, token in enumerate(run.tokens)]
    assert computed == {
        run.slot: [(run.start + at, token, at >= run.silent) for at, token in enumerate(run.tokens)] for run in runs
    }
