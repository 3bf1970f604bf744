"""How a model is split over RPC servers, some with several devices."""

import pytest

from worker.engine.model.rpc_servers import shares_of_devices


@pytest.mark.parametrize(
    ("shares", "counts", "free", "split"),
    [
        ([], [1, 1], [8, 8], []),  # as llama.cpp does it
        ([3.0, 1.0], [1, 1], [8, 8], [3.0, 1.0]),
        ([0.5, 0.5], [2, 1], [6, 2, 8], [0.375, 0.125, 0.5]),
        ([2.0, 1.0], [2, 1], [0, 0, 8], [1.0, 1.0, 1.0]),
        ([1.0], [2], [4, 4], [0.5, 0.5]),
    ],
)
def test_a_servers_share_is_split_among_its_devices(
    shares: list[float], counts: list[int], free: list[int], split: list[float]
) -> None:
    assert shares_of_devices(shares, counts, free) == split
