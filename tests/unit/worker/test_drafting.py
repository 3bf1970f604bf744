"""Who guesses how far ahead."""

import pytest

from worker.engine.speculation.drafting import MOST_DRAFT_ROWS, allot


def test_a_sequence_guesses_as_far_as_it_may_and_no_further_than_its_end() -> None:
    assert allot([100, 2, 0], 4) == [4, 2, 0]


@pytest.mark.parametrize("most", [1, 4, 16])
def test_while_many_decode_nobody_guesses(most: int) -> None:
    few = MOST_DRAFT_ROWS // most
    assert allot([100] * few, most) == [most] * few
    assert allot([100] * (few + 1), most) == [0] * (few + 1)


def test_those_that_cannot_guess_count_among_the_many() -> None:
    assert allot([100, 0, 0, 0, 0], 4) == [0] * 5


def test_nobody_decodes() -> None:
    assert allot([], 4) == []
