"""How many instances a model has."""

from dataclasses import replace

import pytest

from registry.instances.scaling import (
    DOWN_SECONDS,
    LONGEST_DELAY,
    UP_SECONDS,
    Grow,
    Pressure,
    Replica,
    Shrink,
    decide,
    delay_after,
)


def replica(number: int, *, active: int = 0, queued: int = 0, ready: bool = True, grown: bool = True) -> Replica:
    return Replica(f"a/b:{number}", ready, not ready, active, queued, parallel=4, on_demand=grown)


def stalled(number: int) -> Replica:
    return replace(replica(number, active=4), ready=False, loading=False)


def after(seconds: float, *replicas: Replica) -> Pressure:
    """The pressure of replicas that were unchanged for so many seconds, at the time `seconds`."""
    return Pressure().after(replicas, 0.0).after(replicas, seconds)


def test_fewer_replicas_than_the_minimum_start_one() -> None:
    assert decide(1, 3, [], Pressure(), 0.0) == Grow(needed=True)
    assert decide(2, 3, [replica(1, ready=False)], Pressure(), 0.0) == Grow(needed=True)
    assert decide(1, 3, [replica(1)], Pressure(), 0.0) is None


@pytest.mark.parametrize(
    ("replicas", "seconds", "grows"),
    [
        ([replica(1, active=4, queued=1)], UP_SECONDS, True),
        ([replica(1, active=4, queued=1)], UP_SECONDS - 0.1, False),
        ([replica(1, active=4)], UP_SECONDS, False),  # full, but no call waits
        ([replica(1, active=4, queued=1), replica(2, active=2)], UP_SECONDS, False),  # one has a free place
        ([replica(1, active=4, queued=1), replica(2, ready=False)], UP_SECONDS, False),  # one is loading
        ([replica(1, active=4, queued=1), replica(2, active=4, queued=1)], UP_SECONDS, True),
        ([replica(number, active=4, queued=1) for number in (1, 2, 3)], UP_SECONDS, False),  # the maximum
        ([replica(1, active=4, queued=1), stalled(2)], UP_SECONDS, True),  # a stalled one serves no calls
        ([replica(1, queued=1)], UP_SECONDS, False),  # an embedding in progress: no call waits
        ([replica(1, queued=5)], UP_SECONDS, True),
        ([stalled(1)], UP_SECONDS, False),  # and whether calls wait for it is unknown
    ],
)
def test_one_is_added_when_calls_wait_at_all_replicas(replicas: list[Replica], seconds: float, grows: bool) -> None:
    wanted = Grow(needed=False) if grows else None
    assert decide(0, 3, replicas, after(seconds, *replicas), seconds) == wanted


def test_a_moment_without_a_queue_restarts_the_delay() -> None:
    strained, relaxed = [replica(1, active=4, queued=1)], [replica(1)]
    strain = Pressure().after(strained, 0.0).after(relaxed, 1.0).after(strained, 1.5)
    assert decide(0, 2, strained, strain, UP_SECONDS + 0.1) is None
    assert decide(0, 2, strained, strain, UP_SECONDS + 1.5) == Grow(needed=False)


@pytest.mark.parametrize(
    ("least", "replicas", "gone"),
    [
        (0, [replica(1, active=2), replica(2)], 2),
        (0, [replica(1), replica(2, active=2)], 1),  # the newest is busy
        (0, [replica(1, active=2), replica(2, active=1)], None),  # more than half of one replica's places
        (0, [replica(1), replica(2, grown=False)], 1),  # one loaded by an operator is kept
        (2, [replica(1), replica(2)], None),
        (0, [replica(1)], None),  # the last one is unloaded by its own TTL
        (0, [replica(1), replica(2, ready=False)], None),
    ],
)
def test_one_is_removed_when_fewer_have_been_enough(least: int, replicas: list[Replica], gone: int | None) -> None:
    strain = after(DOWN_SECONDS, *replicas)
    wanted = Shrink(f"a/b:{gone}") if gone else None
    assert decide(least, 3, replicas, strain, DOWN_SECONDS) == wanted
    assert decide(least, 3, replicas, strain, DOWN_SECONDS - 0.1) is None


def test_attempts_are_delayed_longer_and_longer() -> None:
    assert [delay_after(failures) for failures in range(4)] == [0, 1, 2, 4]
    assert delay_after(1000) == LONGEST_DELAY
