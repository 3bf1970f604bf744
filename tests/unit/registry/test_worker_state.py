"""Conclusions from a worker's statuses and exits: liveness, idleness, the state, back-off, the preferred instance."""

import pytest

from atelier.settings import Load
from protos import inference_pb2 as pb
from registry.instances.instance_record import Instance
from registry.instances.instance_record import InstanceState as State
from registry.instances.instance_set import preferred_instance
from registry.instances.worker_exit import HEALTHY_SECONDS, CrashCount, describe_exit
from registry.instances.worker_state import Idleness, Liveness, next_state

READY = pb.WorkerStatus(state=pb.WORKER_READY)
LOADING = pb.WorkerStatus(state=pb.WORKER_LOADING)


def instance(state: State, number: int = 1) -> Instance:
    return Instance(id=f"a/b:{number}", model_key="a/b", load=Load(), pin="", on_demand=True, host="", state=state)


def test_delays_double_up_to_half_a_minute() -> None:
    crashes, delays = CrashCount(limit=100), []
    for _ in range(12):
        crashes = crashes.after_crash(0)
        delays.append(crashes.delay)
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 30


def test_one_crash_more_than_the_limit_is_too_many() -> None:
    crashes = CrashCount(limit=1).after_crash(0)
    assert not crashes.too_many
    assert crashes.after_crash(0).too_many


def test_crashes_are_forgotten_after_a_healthy_minute() -> None:
    crashes = CrashCount(limit=5, in_a_row=5)
    assert crashes.after_crash(HEALTHY_SECONDS).in_a_row == 1
    assert crashes.after_crash(HEALTHY_SECONDS - 1).in_a_row == 6


def test_a_silent_worker_stalls() -> None:
    liveness = Liveness(20, status_at=100, progress_at=100).after(READY, 110)
    assert not liveness.stalled(129)
    assert liveness.stalled(130)


def test_a_worker_with_work_and_no_steps_stalls() -> None:
    busy = pb.WorkerStatus(state=pb.WORKER_READY, active=1, steps=7)
    liveness = Liveness(20, 100, 100).after(busy, 101)
    for second in range(102, 121):
        liveness = liveness.after(busy, second)
        assert not liveness.stalled(second)
    assert liveness.stalled(121)
    assert not liveness.after(pb.WorkerStatus(state=pb.WORKER_READY, active=1, steps=8), 122).stalled(122)


def test_an_idle_worker_does_not_stall() -> None:
    assert not Liveness(20, 100, 100).after(READY, 500).stalled(500)


def test_work_between_two_statuses_counts() -> None:
    use = Idleness(last_work=0.0).after(pb.WorkerStatus(steps=4), 10.0)
    assert use.idle_seconds(12.0) == 2.0
    assert use.after(pb.WorkerStatus(steps=4), 11.0).idle_seconds(12.0) == 2.0


@pytest.mark.parametrize("status", [pb.WorkerStatus(active=1), pb.WorkerStatus(queued=1)])
def test_a_busy_instance_never_expires(status: pb.WorkerStatus) -> None:
    use = Idleness(last_work=0.0).after(status, 1.0)
    assert not use.expired(1000.0, 1.0)
    assert use.idle_seconds(1000.0) == 0.0


def test_an_instance_without_a_ttl_is_kept() -> None:
    assert not Idleness(last_work=0.0).expired(1e9, None)
    assert Idleness(last_work=0.0).expired(5.0, 5.0)
    assert not Idleness(last_work=0.0).expired(4.9, 5.0)


def test_the_state_follows_the_worker() -> None:
    assert next_state(State.STARTING, LOADING, stalled=False) is State.LOADING
    assert next_state(State.LOADING, READY, stalled=False) is State.READY
    assert next_state(State.READY, None, stalled=True) is State.STALLED
    assert next_state(State.STALLED, READY, stalled=False) is State.READY
    assert next_state(State.LOADING, pb.WorkerStatus(state=pb.WORKER_FAILED), stalled=False) is State.FAILED


def test_a_worker_that_drains_by_itself_is_no_longer_ready() -> None:
    assert next_state(State.READY, pb.WorkerStatus(state=pb.WORKER_DRAINING), stalled=False) is State.RESTARTING


def test_a_ready_instance_is_chosen_before_one_that_loads() -> None:
    chosen = preferred_instance([instance(State.FAILED, 1), instance(State.LOADING, 2), instance(State.READY, 3)])
    assert chosen is not None
    assert chosen.id == "a/b:3"


def test_a_stalled_instance_is_waited_for_rather_than_replaced() -> None:
    chosen = preferred_instance([instance(State.FAILED, 1), instance(State.STALLED, 2)])
    assert chosen is not None
    assert chosen.state is State.STALLED


def test_worker_exits_are_described_in_words() -> None:
    assert describe_exit(-9, "") == "was killed by SIGKILL"
    assert describe_exit(3, "oh no") == "ended with exit code 3; its log ends: oh no"
    assert describe_exit(None, "") == "ended"
