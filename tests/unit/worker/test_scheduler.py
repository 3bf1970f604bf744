"""What a step computes, decided without llama.cpp."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.scheduler import (
    SMALLEST_SLICE,
    Prefill,
    Slice,
    Slot,
    choose_slot,
    fits_in_cache,
    next_in_turn,
    plan_slices,
    reusable_prefix,
    slice_end,
)

GRID = 64
lengths = st.integers(1, 2000)


def slices_of(total: int, start: int = 0) -> list[tuple[int, int]]:
    found = []
    while start < total:
        end = slice_end(start, total, GRID)
        found.append((start, end))
        start = end
    return found


@given(total=lengths)
def test_slices_cover_a_prompt_without_gaps(total: int) -> None:
    slices = slices_of(total)
    assert slices[0][0] == 0
    assert slices[-1][1] == total
    assert all(a[1] == b[0] for a, b in itertools.pairwise(slices))


@given(total=lengths)
def test_only_a_short_prompt_has_a_tiny_slice(total: int) -> None:
    assert all(end - start >= min(total, SMALLEST_SLICE) for start, end in slices_of(total))


@given(total=lengths)
def test_no_slice_outgrows_the_grid_by_more_than_a_tiny_rest(total: int) -> None:
    assert all(end - start < GRID + SMALLEST_SLICE for start, end in slices_of(total))


@given(total=st.integers(100, 1000), lines=st.integers(0, 10))
def test_a_reused_prefix_leaves_the_slices_where_they_were(total: int, lines: int) -> None:
    reused = reusable_prefix(range(lines * GRID), range(total), GRID)
    assert set(slices_of(total, reused)) <= set(slices_of(total))


def test_a_prefix_is_reused_up_to_a_grid_line() -> None:
    assert reusable_prefix(list(range(100)), list(range(200)), GRID) == 64


def test_a_prompt_that_is_cached_whole_leaves_a_slice_to_compute() -> None:
    prompt = list(range(128))
    assert reusable_prefix(prompt, prompt, GRID) == 64


def test_a_prefix_ends_where_the_tokens_differ() -> None:
    cached = [*range(70), 9999, *range(71, 300)]
    assert reusable_prefix(cached, list(range(300)), GRID) == 64


def test_a_prompt_goes_to_the_slot_that_holds_its_prefix() -> None:
    warm, cold = Slot(0, list(range(128)), last_used=9), Slot(1, [], last_used=1)
    placement = choose_slot(list(range(200)), [cold, warm], GRID)
    assert (placement.slot, placement.reused) == (warm, 128)


def test_a_long_chat_is_not_thrown_away_for_a_short_prefix() -> None:
    long_chat, empty = Slot(0, list(range(3000)), last_used=1), Slot(1, [], last_used=0)
    placement = choose_slot([*range(64), *[9] * 100], [long_chat, empty], GRID)
    assert placement.slot is empty


def test_a_new_prompt_takes_the_slot_unused_for_longest() -> None:
    slots = [Slot(0, [1] * 200, last_used=3), Slot(1, [2] * 200, last_used=1), Slot(2, [3] * 200, last_used=2)]
    assert choose_slot([7] * 100, slots, GRID).slot is slots[1]


def test_short_prompts_share_a_step() -> None:
    planned = plan_slices([Prefill(0, 0, 20), Prefill(1, 0, 30), Prefill(2, 0, 30)], GRID)
    assert planned == [Slice(0, 0, 20), Slice(1, 0, 30)]


def test_a_long_prompt_takes_one_slice_a_step() -> None:
    assert plan_slices([Prefill(0, 64, 5000), Prefill(1, 0, 20)], GRID) == [Slice(0, 64, 128)]


def test_the_prompt_that_came_first_is_computed_first() -> None:
    planned = plan_slices([Prefill(3, 0, 40), Prefill(5, 0, 60)], GRID)
    assert [part.index for part in planned] == [3]


def test_sequences_start_fair_across_keys_and_in_order_among_equals() -> None:
    waiting, running, started = list("AABC"), list("AAB"), ""
    while waiting:
        key = waiting.pop(next_in_turn(waiting, running))
        running.append(key)
        started += key
    assert started == "CBAA"


def test_caches_of_their_own_always_have_room() -> None:
    assert fits_in_cache(10**9, 10**9, None)


def test_a_unified_cache_admits_what_fits_and_no_more() -> None:
    assert fits_in_cache(3000, 1096, 4096)
    assert not fits_in_cache(3000, 1097, 4096)
