"""Statistics of many times."""

import math

from hypothesis import given
from hypothesis import strategies as st

from tests.bench.percentiles import gaps, known, median, percentile, ratio

TIMES = st.lists(st.floats(0, 1e6), min_size=1)


def test_a_percentile_is_interpolated_between_its_neighbours() -> None:
    assert percentile([4, 1, 3, 2], 0.5) == 2.5
    assert percentile(range(101), 0.99) == 99
    assert percentile([10, 20], 0.25) == 12.5


def test_the_extreme_percentiles_are_minimum_and_maximum() -> None:
    assert percentile([3, 1, 2], 0) == 1
    assert percentile([3, 1, 2], 1) == 3


def test_every_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.99) == median([7.0]) == 7.0


def test_no_values_have_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))


@given(TIMES, st.floats(0, 1))
def test_a_percentile_is_never_outside_its_values(values: list[float], share: float) -> None:
    assert min(values) <= percentile(values, share) <= max(values) * (1 + 1e-12)


def test_gaps_are_the_differences_of_successive_times() -> None:
    assert gaps([1.0, 1.5, 3.5]) == [0.5, 2.0]
    assert gaps([1.0]) == gaps([]) == []


def test_a_ratio_to_zero_is_unknown() -> None:
    assert ratio(3, 2) == 1.5
    assert math.isnan(ratio(3, 0))
    assert known([1.0, math.nan, 2.0]) == [1.0, 2.0]
