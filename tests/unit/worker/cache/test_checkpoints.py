"""Which checkpoints slots keep: few enough, shared between slots, and those that later prompts need."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.cache.checkpoints import SLOT_MOST, Checkpoint, Checkpoints, least_useful


def checkpoint(tokens: int) -> Checkpoint:
    return Checkpoint(tokens, np.zeros(4, np.uint8))


def filled(most: int, slots: int, *lengths: int) -> Checkpoints:
    """With these checkpoints in slot 0."""
    checkpoints = Checkpoints(most, slots)
    for tokens in lengths:
        checkpoints.add(0, checkpoint(tokens))
    return checkpoints


def test_the_last_one_at_or_before_a_length_is_found() -> None:
    checkpoints = filled(4, 1, 10, 20, 30)
    found = [checkpoints.latest(0, tokens) for tokens in (9, 10, 29, 99)]
    assert [each and each.tokens for each in found] == [None, 10, 20, 30]
    assert checkpoints.latest(1, 99) is None


def test_a_cut_slot_keeps_only_those_of_what_it_keeps() -> None:
    checkpoints = filled(4, 1, 10, 20, 30)
    checkpoints.cut(0, 20)
    assert checkpoints.lengths(0) == [10, 20]
    checkpoints.cut(0, 5)
    assert (checkpoints.lengths(0), len(checkpoints)) == ([], 0)


def test_a_copied_slot_shares_them_and_shared_ones_count_once() -> None:
    checkpoints = filled(2, 2, 10, 20, 30)
    checkpoints.copy(0, 1, 25)
    assert (checkpoints.lengths(1), len(checkpoints)) == ([10, 20], 3)
    checkpoints.cut(0, 0)
    assert (checkpoints.lengths(0), checkpoints.lengths(1), len(checkpoints)) == ([], [10, 20], 2)


def test_a_slot_uses_those_of_idle_ones() -> None:
    checkpoints = filled(2, 4, *range(10, 90, 10))
    assert checkpoints.lengths(0) == list(range(10, 90, 10))


def test_the_slot_that_was_not_used_for_longest_loses_its_own_first() -> None:
    checkpoints = filled(2, 2, 10, 20)
    checkpoints.add(1, checkpoint(15))
    checkpoints.add(1, checkpoint(25))
    checkpoints.add(1, checkpoint(35))
    assert (checkpoints.lengths(0), checkpoints.lengths(1)) == ([20], [15, 25, 35])


def test_one_slot_does_not_take_all_of_many() -> None:
    assert len(filled(2, 50, *range(10, 1000, 10))) == SLOT_MOST


def test_the_first_and_the_last_stay() -> None:
    lengths = [100, 2000, 2100, 2200, 2290, 2300]
    while len(lengths) > 2:
        del lengths[least_useful(lengths)]
    assert lengths == [100, 2300]


def test_gaps_grow_with_the_distance_from_the_end() -> None:
    lengths: list[int] = []
    for tokens in range(50, 5001, 50):
        lengths.append(tokens)
        if len(lengths) > 8:
            del lengths[least_useful(lengths)]
    gaps = [after - before for before, after in pairwise(lengths)]
    assert gaps == sorted(gaps, reverse=True)


@given(
    most=st.integers(1, 4),
    changes=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 2), st.integers(1, 5)),
            st.tuples(st.just("cut"), st.integers(0, 2), st.integers(0, 30)),
            st.tuples(st.just("copy"), st.integers(0, 2), st.integers(0, 2)),
        ),
        max_size=40,
    ),
)
def test_there_are_never_too_many_and_each_slot_has_those_of_its_text(
    most: int, changes: list[tuple[str, int, int]]
) -> None:
    """A text's length stands for the text: each addition makes it longer by a number of its own."""
    checkpoints = Checkpoints(most, 3)
    lengths, owned = [0, 0, 0], [set[int](), set[int](), set[int]()]
    for change, slot, number in changes:
        match change:
            case "add":
                lengths[slot] += number
                owned[slot].add(lengths[slot])
                checkpoints.add(slot, checkpoint(lengths[slot]))
            case "cut":
                lengths[slot] = min(lengths[slot], number)
                owned[slot] = {each for each in owned[slot] if each <= number}
                checkpoints.cut(slot, number)
            case "copy" if slot != number:
                lengths[number], owned[number] = lengths[slot], set(owned[slot])
                checkpoints.copy(slot, number, lengths[slot])
        assert len(checkpoints) <= 3 * most
        for each in range(3):
            assert checkpoints.lengths(each) == sorted(checkpoints.lengths(each))
            assert owned[each].issuperset(checkpoints.lengths(each))
        if change == "add":
            assert checkpoints.lengths(slot)[-1] == lengths[slot], "the newest one stays"
