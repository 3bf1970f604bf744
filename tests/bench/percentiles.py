"""Statistics of many times. Pure."""

import math
from collections.abc import Sequence
from itertools import pairwise


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies, interpolated; NaN without values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)


def gaps(times: Sequence[float]) -> list[float]:
    """From each moment to the next."""
    return [later - earlier for earlier, later in pairwise(times)]


def ratio(ours: float, theirs: float) -> float:
    """NaN where there is nothing to divide by, which medians then leave out."""
    return ours / theirs if theirs else math.nan


def known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]
