"""Which stored responses exceed the limits."""

import pytest

from registry.responses.response_rows import excess


@pytest.mark.parametrize(
    ("sizes", "most", "most_bytes", "expected"),
    [
        ([], 5, 5, 0),
        ([1, 2, 3], 3, 6, 0),
        ([1, 2, 3], 2, 100, 1),
        ([1, 2, 3], 100, 5, 1),
        ([1, 2, 3], 100, 3, 2),
        ([1, 2, 3], 100, 2, 3),
        ([9, 1, 1, 1], 2, 3, 2),
    ],
)
def test_the_oldest_are_deleted_until_the_rest_is_within_both_limits(
    sizes: list[int], most: int, most_bytes: int, expected: int
) -> None:
    assert excess(sizes, most, most_bytes) == expected
