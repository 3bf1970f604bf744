"""The limit of the saved states in RAM."""

import pytest

from atelier.machine_memory import LARGEST_CACHE, cache_share
from worker.engine.cache import ram_limit
from worker.engine.cache.ram_limit import HOLD_SECONDS, RamLimit


def test_a_cache_takes_a_quarter_of_what_is_free_and_not_more_than_the_largest() -> None:
    assert cache_share(1000) == 250
    assert cache_share(-1) == 0
    assert cache_share(100 * LARGEST_CACHE) == LARGEST_CACHE


def test_a_limit_without_a_size_is_a_share_of_what_is_free_when_it_is_made() -> None:
    free = [1000]
    limit = RamLimit(None, makes_way=True, free=lambda: free[0])
    free[0] = 10_000
    assert (limit.most, limit.now(0)) == (250, 250)


@pytest.mark.parametrize(("used", "free", "now"), [(0, 4000, 500), (0, 800, 200), (400, 0, 100), (200, 600, 200)])
def test_a_limit_that_makes_way_falls_with_the_free_memory(used: int, free: int, now: int) -> None:
    """`used` bytes would be free without the cache itself."""
    assert RamLimit(500, makes_way=True, free=lambda: free).now(used) == now


def test_a_cache_that_made_way_grows_again_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(ram_limit.time, "monotonic", lambda: clock[0])
    limit = RamLimit(500, makes_way=True, free=lambda: 10_000)
    assert limit.make_way(400, 150) == limit.now(250) == 250
    assert limit.make_way(250, 1000) == limit.now(0) == 0
    clock[0] += HOLD_SECONDS
    assert limit.now(0) == 500


def test_a_requested_size_does_not_change() -> None:
    limit = RamLimit(500, makes_way=False, free=lambda: 0)
    assert (limit.now(400), limit.make_way(400, 100), limit.now(400)) == (500, 400, 500)
