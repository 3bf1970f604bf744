"""In how many graphs llama.cpp computes a call, and with how many rows each. Pure.

With a cache of its own for each sequence, a graph has the same number of rows for each of its sequences, and these are
neighbours (src/llama-batch.cpp, split_equal). Each graph reads all weights again:

    slots 0 1 2 with 1 1 1 rows: one graph         slots 0 1 2 with 4 1 1 rows: graphs of 3 and 3 rows
    slots 0 1 2 with 3 3 3 rows: one graph         slots 0 2   with 1 1   rows: graphs of 1 and 1 row
"""

from collections.abc import Sequence


def graph_rows(slots: Sequence[int], rows: Sequence[int], *, unified: bool) -> list[int]:
    """The rows of each graph of a call with so many rows for each of these slots, which ascend.

    `unified`: all slots share a cache, so that a call is one graph.
    """
    if unified:
        return [sum(rows)] if any(rows) else []
    left = [(slot, count) for slot, count in zip(slots, rows, strict=True) if count]
    graphs = []
    while left:
        size = 1
        while size < len(left) and left[size][0] == left[size - 1][0] + 1:
            size += 1
        each = min(count for _, count in left[:size])
        graphs.append(size * each)
        left = [(slot, count - each) for slot, count in left[:size] if count > each] + left[size:]
    return graphs
