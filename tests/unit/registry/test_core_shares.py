"""Disjoint cores for instances in main memory."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from registry.instances.core_shares import CoreClaim, share_cores

FOUR = [[0], [1], [2], [3]]


def test_the_only_busy_instance_has_all_cores() -> None:
    parts = share_cores(FOUR, [CoreClaim("a", busy=True), CoreClaim("b", busy=False)])
    assert parts["a"] == [0, 1, 2, 3]


def test_busy_instances_divide_the_cores() -> None:
    parts = share_cores(FOUR, [CoreClaim("a", busy=True), CoreClaim("b", busy=True), CoreClaim("c", busy=False)])
    assert parts == {"a": [0, 1], "b": [2, 3], "c": [3]}


def test_idle_instances_have_the_share_that_they_would_have_when_busy() -> None:
    parts = share_cores(FOUR, [CoreClaim("a", busy=False), CoreClaim("b", busy=False), CoreClaim("c", busy=False)])
    assert parts == {"a": [0, 1], "b": [2], "c": [3]}


def test_hyperthreads_of_a_core_stay_together() -> None:
    parts = share_cores([[0, 4], [1, 5], [2, 6]], [CoreClaim("a", busy=True), CoreClaim("b", busy=True)])
    assert parts == {"a": [0, 4, 1, 5], "b": [2, 6]}


def test_more_busy_instances_than_cores_share_a_core() -> None:
    parts = share_cores([[0], [1]], [CoreClaim(id, busy=True) for id in "abc"])
    assert parts == {"a": [0], "b": [1], "c": [0]}


@given(st.integers(1, 64), st.lists(st.booleans(), min_size=1, max_size=20))
def test_busy_instances_use_every_core_once(cores: int, work: list[bool]) -> None:
    physical = [[core] for core in range(cores)]
    parts = share_cores(physical, [CoreClaim(str(number), busy) for number, busy in enumerate(work)])
    assert parts.keys() == {str(number) for number in range(len(work))}
    assert all(parts.values())
    busy = [parts[str(number)] for number, works in enumerate(work) if works]
    if 0 < len(busy) <= cores:
        assert sorted(itertools.chain.from_iterable(busy)) == list(range(cores))
        assert max(map(len, busy)) - min(map(len, busy)) <= 1
