"""The reconciler, with instances that only record its calls."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from registry.instances import reconciler
from registry.instances.instance_record import InstanceState
from registry.instances.reconciler import HEALTHY_SECONDS, Reconciler
from registry.models.model_record import Replicas

KEY = "a/b"


@dataclass
class FakeInstances:
    broken: bool = False
    passes: int = 0
    started: list[Any] = field(default_factory=list)
    unloaded: list[str] = field(default_factory=list)

    def unload_expired(self, now: float) -> None:
        self.passes += 1
        if self.broken:
            raise RuntimeError("a fault")

    def replicas_of(self, key: str) -> list[Any]:
        return [each for each in self.started if each.state not in (InstanceState.FAILED, InstanceState.STOPPING)]

    def clear_failed(self, key: str) -> bool:
        return False

    def start_replica(self, key: str, *, needed: bool) -> Any:
        self.started.append(Started(f"{key}:{len(self.started) + 1}", extra=not needed))
        return self.started[-1]

    def begin_unload(self, instance_id: str) -> None:
        self.unloaded.append(instance_id)


class Started:
    """The part of a supervisor that the reconciler uses."""

    def __init__(self, id: str, extra: bool) -> None:
        self.plan = SimpleNamespace(instance_id=id, extra=extra)
        self.state = InstanceState.LOADING

    @property
    def instance(self) -> Any:
        counts = {"active": 0, "queued": 0, "parallel": 4, "on_demand": True}
        return SimpleNamespace(id=self.plan.instance_id, state=self.state, **counts)


def reconciler_of(instances: FakeInstances, least: int) -> Reconciler:
    model: Any = SimpleNamespace(key=KEY, replicas=Replicas(least, least))
    return Reconciler(instances, instances.start_replica, lambda: [model])  # type: ignore[arg-type]


def test_every_failure_delays_the_next_attempt_even_of_concurrent_loads() -> None:
    instances = FakeInstances()
    reconciling = reconciler_of(instances, 3)
    for now in range(3):
        reconciling.reconcile(now)
    first, second, third = instances.started
    first.state = InstanceState.FAILED
    reconciling.reconcile(10.0)
    reconciling.reconcile(10.9)
    assert len(instances.started) == 3
    second.state = third.state = InstanceState.FAILED
    reconciling.reconcile(11.0)
    reconciling.reconcile(14.9)  # three in a row: four seconds
    assert len(instances.started) == 3
    reconciling.reconcile(15.0)
    assert len(instances.started) == 4


def test_failures_are_forgotten_once_a_replica_has_been_ready_for_a_while() -> None:
    instances = FakeInstances()
    reconciling = reconciler_of(instances, 1)
    reconciling.reconcile(0.0)
    for now in (1.0, 3.0, 8.0):
        instances.started[-1].state = InstanceState.FAILED
        reconciling.reconcile(now)
        reconciling.reconcile(now + 10)
    instances.started[-1].state = InstanceState.READY
    reconciling.reconcile(20.0)
    reconciling.reconcile(20.0 + HEALTHY_SECONDS)
    instances.started[-1].state = InstanceState.FAILED  # no longer watched: its supervisor retried long enough
    reconciling.reconcile(100.0)
    assert len(instances.started) == 5


def test_a_replica_unloaded_by_an_operator_is_not_watched() -> None:
    instances = FakeInstances()
    reconciling = reconciler_of(instances, 1)
    reconciling.reconcile(0.0)
    instances.started[0].state = InstanceState.STOPPING
    reconciling.reconcile(1.0)
    assert len(instances.started) == 2
    assert list(reconciling._histories[KEY].watched) == [instances.started[1]]


async def test_an_exception_does_not_end_the_reconciler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "INTERVAL_SECONDS", 0.0)
    instances = FakeInstances(broken=True)
    running = asyncio.create_task(reconciler_of(instances, 0).run())
    while instances.passes < 2 and not running.done():  # noqa: ASYNC110 - a few turns of the loop
        await asyncio.sleep(0)
    assert not running.done()
    running.cancel()
