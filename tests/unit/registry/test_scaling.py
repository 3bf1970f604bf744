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
    """What has held for so many seconds, at the time `seconds`."""
    return Pressure().after(replicas, 0.0).after(replicas, seconds)


def test_fewer_than_the_least_is_one_too_few() -> None:
    assert decide(1, 3, [], Pressure(), 0.0) == Grow(needed=True)
    assert decide(2, 3, [replica(1, ready=False)], Pressure(), 0.0) == Grow(needed=True)
    assert decide(1, 3, [replica(1)], Pressure(), 0.0) is None


@pytest.mark.parametrize(
    ("replicas", "seconds", "grows"),
    [
        ([replica(1, active=4, queued=1)], UP_SECONDS, True),
        ([replica(1, active=4, queued=1)], UP_SECONDS - 0.1, False),
        ([replica(1, active=4)], UP_SECONDS, False),  # full, and nobody waits
        ([replica(1, active=4, queued=1), replica(2, active=2)], UP_SECONDS, False),  # there is a place
        ([replica(1, active=4, queued=1), replica(2, ready=False)], UP_SECONDS, False),  # one is on its way
        ([replica(1, active=4, queued=1), replica(2, active=4, queued=1)], UP_SECONDS, True),
        ([replica(number, active=4, queued=1) for number in (1, 2, 3)], UP_SECONDS, False),  # that is the most
        ([replica(1, active=4, queued=1), stalled(2)], UP_SECONDS, True),  # one that hangs helps nobody
        ([replica(1, queued=1)], UP_SECONDS, False),  # an embedding at work: nobody waits for it
        ([replica(1, queued=5)], UP_SECONDS, True),
        ([stalled(1)], UP_SECONDS, False),  # and whether calls wait for it, nobody knows
    ],
)
def test_one_more_comes_when_calls_wait_at_all_of_them(replicas: list[Replica], seconds: float, grows: bool) -> None:
    wanted = Grow(needed=False) if grows else None
    assert decide(0, 3, replicas, after(seconds, *replicas), seconds) == wanted


def test_a_moment_without_a_queue_starts_the_wait_anew() -> None:
    strained, relaxed = [replica(1, active=4, queued=1)], [replica(1)]
    strain = Pressure().after(strained, 0.0).after(relaxed, 1.0).after(strained, 1.5)
    assert decide(0, 2, strained, strain, UP_SECONDS + 0.1) is None
    assert decide(0, 2, strained, strain, UP_SECONDS + 1.5) == Grow(needed=False)


@pytest.mark.parametrize(
    ("least", "replicas", "gone"),
    [
        (0, [replica(1, active=2), replica(2)], 2),
        (0, [replica(1), replica(2, active=2)], 1),  # the newest works
        (0, [replica(1, active=2), replica(2, active=1)], None),  # more than half of the places of one
        (0, [replica(1), replica(2, grown=False)], 1),  # an operator's stays
        (2, [replica(1), replica(2)], None),
        (0, [replica(1)], None),  # the last goes after its idle time
        (0, [replica(1), replica(2, ready=False)], None),
    ],
)
def test_one_fewer_stays_when_that_has_been_enough(least: int, replicas: list[Replica], gone: int | None) -> None:
    strain = after(DOWN_SECONDS, *replicas)
    wanted = Shrink(f"a/b:{gone}") if gone else None
    assert decide(least, 3, replicas, strain, DOWN_SECONDS) == wanted
    assert decide(least, 3, replicas, strain, DOWN_SECONDS - 0.1) is None


def test_attempts_are_put_off_longer_and_longer() -> None:
    assert [delay_after(failures) for failures in range(4)] == [0, 1, 2, 4]
    assert delay_after(1000) == LONGEST_DELAY
