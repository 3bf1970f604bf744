"""The graphs of a call, as llama.cpp divides it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.model.graph_split import graph_rows


@pytest.mark.parametrize(
    ("slots", "rows", "graphs"),
    [
        ([0, 1, 2], [1, 1, 1], [3]),
        ([0, 1, 2], [3, 3, 3], [9]),
        ([0, 1, 2], [4, 1, 1], [3, 3]),
        ([0, 1, 2], [1, 4, 4], [3, 6]),
        ([0, 1, 2], [4, 1, 4], [3, 3, 3]),
        ([0, 2], [1, 1], [1, 1]),
        ([0, 1, 3], [2, 1, 2], [2, 1, 2]),
        ([5], [7], [7]),
        ([], [], []),
    ],
)
def test_a_graph_has_the_same_number_of_rows_for_neighbouring_slots(
    slots: list[int], rows: list[int], graphs: list[int]
) -> None:
    assert graph_rows(slots, rows, unified=False) == graphs


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 5)))
def test_every_row_is_in_one_graph(call: dict[int, int]) -> None:
    slots = sorted(call)
    rows = [call[slot] for slot in slots]
    graphs = graph_rows(slots, rows, unified=False)
    assert sum(graphs) == sum(rows)
    assert all(size > 0 for size in graphs)
    assert graph_rows(slots, rows, unified=True) == ([sum(rows)] if graphs else [])
