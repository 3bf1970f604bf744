"""Decisions about what a step computes, without llama.cpp."""

from dataclasses import replace
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.submission import MOST_PRIORITY
from worker.engine.batching.fairness import LEVEL_SECONDS
from worker.engine.batching.scheduler import (
    BURST_SECONDS,
    LONE,
    UNIT,
    Begin,
    FreeSlot,
    PromptRest,
    Wait,
    begin_or_wait,
    came_together,
    choose_slot,
    finer,
    fits_in_cache,
    gathering_seconds,
    plan_prefill,
    spread_prefill,
    until_awaited,
)
from worker.engine.cache.prefix_tree import Match

few = settings(max_examples=40, deadline=None)
SECOND = 0.001  # per token
tokens = st.integers(0, 4000)
free_slots = st.lists(
    st.builds(lambda held, share, used: FreeSlot(0, held, int(held * share), used), tokens, st.floats(0, 1), tokens),
    min_size=1,
    max_size=6,
).map(lambda slots: [replace(slot, id=number) for number, slot in enumerate(slots)])
prefills = st.dictionaries(
    st.integers(0, 9),
    st.builds(PromptRest, st.lists(st.integers(1, 80), min_size=1, max_size=10), st.floats(0, 10)),
    max_size=8,
)


# The choice of a slot.


def chosen(*free: FreeSlot, copy_tokens: int = 5, split_tokens: int = 200) -> FreeSlot:
    return choose_slot(free, copy_tokens=copy_tokens, split_tokens=split_tokens)


def test_a_prompt_goes_to_the_slot_that_holds_its_prefix() -> None:
    warm, cold = FreeSlot(0, 128, 128, last_used=9), FreeSlot(1, 0, 0, last_used=1)
    assert chosen(cold, warm) == warm


def test_a_long_chat_is_not_discarded_for_a_short_prefix() -> None:
    long_chat, empty = FreeSlot(0, 3000, 64, last_used=2), FreeSlot(1, 0, 0, last_used=1)
    assert chosen(long_chat, empty) == empty


def test_a_prefix_that_is_slow_to_copy_is_reused_in_place_at_some_loss() -> None:
    warm, empty = FreeSlot(0, 200, 100, last_used=9), FreeSlot(1, 0, 0, last_used=0)
    assert chosen(warm, empty, copy_tokens=100) == warm
    assert chosen(warm, empty, copy_tokens=40) == empty


def test_among_equal_prefixes_the_slot_that_loses_least_is_chosen() -> None:
    longer, shorter = FreeSlot(0, 200, 128, last_used=0), FreeSlot(1, 128, 128, last_used=1)
    assert chosen(longer, shorter) == shorter


def test_a_new_prompt_takes_the_slot_unused_for_longest() -> None:
    slots = [FreeSlot(0, 200, 0, last_used=3), FreeSlot(1, 200, 0, last_used=1), FreeSlot(2, 200, 0, last_used=2)]
    assert chosen(*slots) == slots[1]


def test_a_slot_beside_others_in_use_is_taken_before_one_unused_for_longer() -> None:
    alone, beside = FreeSlot(0, 200, 0, last_used=0), FreeSlot(1, 200, 0, last_used=1, neighbours=1)
    assert chosen(alone, beside) == beside
    assert chosen(alone, beside, split_tokens=20) == alone


def test_a_slot_between_used_ones_is_preferred_unless_it_loses_much() -> None:
    beside, gap = FreeSlot(0, 200, 0, last_used=0, neighbours=1), FreeSlot(1, 200, 0, last_used=1, neighbours=2)
    assert chosen(beside, gap) == gap
    assert chosen(beside, replace(gap, held=2000)) == beside


@few
@given(free_slots, st.integers(1, 500))
def test_a_slot_that_loses_nothing_is_preferred_to_one_that_holds_less_of_the_prompt(
    free: list[FreeSlot], copy_tokens: int
) -> None:
    choice = choose_slot(free, copy_tokens=copy_tokens, split_tokens=0)
    lossless = [slot.common for slot in free if slot.held == slot.common]
    assert choice in free
    if choice.held > choice.common:
        assert all(choice.common > common for common in lossless)
    assert choice.common >= max(lossless, default=0) - copy_tokens


# How a prompt begins.


def test_a_prompt_waits_for_a_prefix_that_another_sequence_computes() -> None:
    match = Match(0, frozenset(), 64, frozenset([3]))
    assert begin_or_wait(0, match, worth_copying=10, worth_waiting=26) == Wait(64, frozenset([3]))


def test_a_prompt_does_not_wait_for_few_tokens() -> None:
    match = Match(60, frozenset([1]), 64, frozenset([3]))
    assert begin_or_wait(60, match, worth_copying=10, worth_waiting=26) == Begin(60)
    assert begin_or_wait(60, match, worth_copying=2, worth_waiting=18) == Begin(60)


def test_a_prompt_does_not_wait_for_few_tokens_more_than_it_can_copy() -> None:
    match = Match(200, frozenset([1]), 210, frozenset([3]))
    assert begin_or_wait(0, match, worth_copying=10, worth_waiting=26) == Begin(200, source=1)


def test_a_prompt_copies_its_prefix_from_another_slot() -> None:
    assert begin_or_wait(64, Match(256, frozenset([5, 3]), 256), worth_copying=100, worth_waiting=116) == Begin(
        256, source=3
    )


def test_few_tokens_are_not_copied() -> None:
    assert begin_or_wait(64, Match(128, frozenset([3]), 128), worth_copying=100, worth_waiting=116) == Begin(64)


def test_a_prompt_continues_the_prefix_in_its_own_slot() -> None:
    assert begin_or_wait(128, Match(128, frozenset([0]), 128), worth_copying=1, worth_waiting=17) == Begin(128)


@few
@given(st.tuples(tokens, tokens, tokens).map(sorted), st.integers(1, 500))
def test_the_chosen_prefix_is_the_longest_one_worth_copying(known: list[int], worth: int) -> None:
    own, held, claimed = known
    match = Match(held, frozenset([4, 7]), claimed, frozenset([9]) if claimed > held else frozenset())
    decision = begin_or_wait(own, match, worth_copying=worth, worth_waiting=worth + 16)
    if isinstance(decision, Wait):
        assert claimed - own >= worth + 16
        assert claimed - held >= worth + 16 or held - own < worth
    elif decision.source is None:
        assert decision.tokens == own
        assert held - own < worth
    else:
        assert decision == Begin(held, source=4)
        assert held - own >= worth


# The prefill of a step.


def test_a_short_prompt_does_not_wait_behind_a_long_one() -> None:
    long, short = PromptRest([64] * 50, waited=0.5), PromptRest([20], waited=0)
    assert list(plan_prefill({0: long, 1: short}, SECOND, 100)) == [1]


def test_a_prompt_that_waited_long_precedes_a_short_one() -> None:
    long, short = PromptRest([64] * 50, waited=4), PromptRest([20], waited=0)
    assert next(iter(plan_prefill({0: long, 1: short}, SECOND, 100))) == 0


def test_an_urgent_prompt_comes_first_regardless_of_its_length() -> None:
    urgent, short = PromptRest([64] * 50, 0, priority=-1), PromptRest([20], 3)
    assert next(iter(plan_prefill({0: short, 1: urgent}, SECOND, 100))) == 1


def test_a_prompt_of_low_priority_is_not_starved_by_urgent_ones() -> None:
    patient, urgent = (
        PromptRest([64] * 50, LEVEL_SECONDS * 2 * MOST_PRIORITY, MOST_PRIORITY),
        PromptRest([20], 0, -MOST_PRIORITY),
    )
    assert next(iter(plan_prefill({0: urgent, 1: patient}, SECOND, 100))) == 1


def test_a_slice_longer_than_a_step_is_computed_alone() -> None:
    assert plan_prefill({3: PromptRest([500, 10], 0), 5: PromptRest([600], 0)}, SECOND, 100) == {3: [500]}


def test_several_slices_of_a_prompt_share_a_step() -> None:
    assert plan_prefill({2: PromptRest([64, 64, 64, 64], 0)}, SECOND, 200) == {2: [64, 64, 64]}


def test_prompts_that_end_in_this_step_share_it() -> None:
    short, longer, long = PromptRest([20, 4], 0), PromptRest([30, 10], 0), PromptRest([64] * 9, 0)
    planned = plan_prefill({0: long, 1: longer, 2: short}, SECOND, 512)
    assert planned == {2: [20, 4], 1: [30, 10]}, "the long one would make them wait"


@few
@given(prefills.filter(bool), st.integers(1, 1000))
def test_a_plan_is_never_empty_while_prompts_remain(waiting: dict[int, PromptRest], rows: int) -> None:
    assert plan_prefill(waiting, SECOND, rows)


@few
@given(prefills.filter(bool), st.integers(1, 1000))
def test_a_plan_has_no_more_rows_than_allowed_after_the_first_slice(waiting: dict[int, PromptRest], rows: int) -> None:
    slices = [tokens for planned in plan_prefill(waiting, SECOND, rows).values() for tokens in planned]
    assert len(slices) <= 1 or sum(slices) <= rows


@few
@given(prefills.filter(bool), st.integers(1, 1000))
def test_only_the_most_urgent_prompt_is_computed_in_part(waiting: dict[int, PromptRest], rows: int) -> None:
    first, *others = plan_prefill(waiting, SECOND, rows).items()
    assert first[1] == waiting[first[0]].slices[: len(first[1])]
    assert all(slices == waiting[slot].slices for slot, slices in others)


@few
@given(prefills.filter(bool))
def test_all_slices_are_planned_when_there_is_room(waiting: dict[int, PromptRest]) -> None:
    planned = plan_prefill(waiting, SECOND, 10**6)
    assert planned == {slot: prefill.slices for slot, prefill in waiting.items()}


def test_a_burst_is_several_prompts_of_one_priority_that_arrived_together() -> None:
    short = PromptRest([100], waited=0.1)
    assert came_together({0: short, 1: short}, SECOND, 512)
    assert not came_together({0: short}, SECOND, 512)
    assert not came_together({0: short, 1: replace(short, priority=1)}, SECOND, 512)
    assert not came_together({0: short, 1: PromptRest([100], waited=BURST_SECONDS + 0.2)}, SECOND, 512)
    assert not came_together({0: short, 1: PromptRest([100] * 40, waited=0.1)}, SECOND, 512)


def test_prompts_that_take_long_may_arrive_further_apart() -> None:
    early, late = PromptRest([400], waited=1.0), PromptRest([400], waited=0.0)
    assert came_together({0: early, 1: late}, 0.02, 512)
    assert not came_together({0: early, 1: late}, SECOND, 512)


def test_prompts_of_one_length_end_together() -> None:
    left = {slot: [2] * 30 for slot in range(3)}
    ended = []
    for step in range(9):
        prefills = {slot: PromptRest(slices, waited=0) for slot, slices in left.items() if slices}
        for slot, slices in spread_prefill(prefills, 30).items():
            left[slot] = left[slot][len(slices) :]
            ended += [step] if not left[slot] else []
        if len(ended) == 3:
            break
    assert ended == [5, 5, 5]


@few
@given(prefills.filter(bool), st.integers(1, 1000))
def test_every_prompt_of_a_burst_gets_its_share_of_a_step(waiting: dict[int, PromptRest], rows: int) -> None:
    planned = spread_prefill(waiting, rows)
    for slot, prefill in waiting.items():
        taken = planned[slot]
        assert taken == prefill.slices[: len(taken)] != []
        assert len(taken) == 1 or sum(taken) <= rows // len(waiting)
        assert len(taken) == len(prefill.slices) or sum(prefill.slices[: len(taken) + 1]) > rows // len(waiting)


def test_a_prompt_is_computed_up_to_where_others_continue_from_it() -> None:
    assert until_awaited([64, 64, 64], 100, []) == [64, 64, 64]
    assert until_awaited([64, 64, 64], 100, [164]) == [64]
    assert until_awaited([64, 64, 64], 100, [164, 228]) == [64, 64]
    assert until_awaited([64, 64, 64], 100, [100, 292]) == [64, 64, 64]
    assert until_awaited([64, 64, 64], 100, [164, 292]) == [64]


def test_a_lone_prompt_waits_for_its_burst_a_small_share_of_its_time() -> None:
    assert gathering_seconds(0.5, 1, 0, 0, expected=False) == pytest.approx(0.01)
    assert gathering_seconds(0.5, 1, 0.01, 0.004, expected=False) == pytest.approx(0.006)
    assert gathering_seconds(0.5, 1, 0.5, 0.5, expected=False) < 0
    assert gathering_seconds(1000, 1, 0, 0, expected=False) == LONE.most


def test_prompts_wait_longer_while_others_come() -> None:
    assert gathering_seconds(1, 1, 0.025, 0.025, expected=False) < 0
    assert gathering_seconds(1, 2, 0.025, 0.025, expected=False) == pytest.approx(0.005)
    assert gathering_seconds(1, 1, 0.025, 0.025, expected=True) == pytest.approx(0.025)
    for expected in (False, True):
        assert gathering_seconds(1, 2, 0.06, 0.0, expected=expected) < 0
        assert gathering_seconds(1000, 2, 0.25, 0.0, expected=expected) < 0


def test_a_prompt_that_is_computed_in_no_time_waits_for_no_long_one() -> None:
    assert gathering_seconds(0.01, 1, 0, 0, expected=True) == pytest.approx(0.005)


def test_a_long_prompt_is_not_starved_by_short_ones() -> None:
    """A short prompt arrives with every step and would fill it."""
    left: dict[float, list[int]] = {0.0: [64] * 60}  # arrival time -> its slices
    now = 0.0
    for _ in range(400):
        now += 0.064
        left[now] = [64]
        came = dict(enumerate(left))
        prefills = {slot: PromptRest(left[at], now - at) for slot, at in came.items()}
        for slot, slices in plan_prefill(prefills, SECOND, 100).items():
            left[came[slot]] = left[came[slot]][len(slices) :]
        left = {at: slices for at, slices in left.items() if slices}
        if 0.0 not in left:
            return
    raise AssertionError(f"{len(left[0.0])} slices are left")


# A unified cache.


def test_separate_caches_always_have_room() -> None:
    assert fits_in_cache(10**9, 10**9, None)


def test_a_unified_cache_admits_what_fits_and_no_more() -> None:
    assert fits_in_cache(3000, 1096, 4096)
    assert not fits_in_cache(3000, 1097, 4096)


@given(st.lists(st.integers(min_value=1, max_value=100), max_size=20))
def test_finer_slices_cover_the_same_tokens_in_units(slices: list[int]) -> None:
    units = finer(slices)
    assert sum(units) == sum(slices)
    assert all(unit < 2 * UNIT for unit in units)
    assert units.count(1) == slices.count(1), "no token is computed alone"
    ends, borders = set(accumulate(units)), set(accumulate(slices))
    assert borders <= ends, "a slice's end stays one"
