"""How many draft tokens each sequence gets."""

import pytest

from worker.engine.speculation.drafting import MOST_DRAFT_ROWS, allot


def test_a_sequence_drafts_up_to_the_limit_and_its_own_end() -> None:
    assert allot([100, 2, 0], 4) == [4, 2, 0]


@pytest.mark.parametrize("most", [1, 4, 16])
def test_no_sequence_drafts_while_many_decode(most: int) -> None:
    few = MOST_DRAFT_ROWS // most
    assert allot([100] * few, most) == [most] * few
    assert allot([100] * (few + 1), most) == [0] * (few + 1)


def test_sequences_that_cannot_draft_are_counted_too() -> None:
    assert allot([100, 0, 0, 0, 0], 4) == [0] * 5


def test_no_sequences_need_no_drafts() -> None:
    assert allot([], 4) == []
