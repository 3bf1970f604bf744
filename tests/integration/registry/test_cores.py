"""Instances in main memory compute on separate cores while they are busy."""

from typing import Any

import pytest

from protos import registry_pb2 as pb
from registry.instances import launch_plan as plan
from tests.integration.registry.conftest import KEY, Running
from tests.support.registry.registry_launcher import FakeLauncher


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "available_cores", lambda: frozenset(range(4)))


async def test_busy_instances_have_separate_cores(start: Any, launcher: FakeLauncher) -> None:
    registry: Running = await start(guardrail="off")
    async with registry.client.watch() as view:
        for _ in range(2):
            await registry.client.create(KEY)
        first, second = launcher.workers
        first.work(1)
        await view.until(lambda view: view.instances[KEY].active == 1)
        assert first.cores == [0, 1, 2, 3]
        second.work(1)
        await view.until(lambda view: second.cores == [2, 3] and first.cores == [0, 1])
        await view.until(lambda view: view.instances[f"{KEY}:2"].pin == "cpu cores 2-3")
        first.work(0)
        await view.until(lambda view: second.cores == [0, 1, 2, 3])


async def test_requested_cores_are_not_shared(start: Any, launcher: FakeLauncher) -> None:
    registry: Running = await start(guardrail="off")
    async with registry.client.watch() as view:
        await registry.client.create(KEY, cores="0")
        await registry.client.create(KEY)
        given, other = launcher.workers
        assert given.spec.cores == [0]
        other.work(1)
        await view.until(lambda view: other.cores == [1, 2, 3])
        assert given.cores == []
        assert view.instances[KEY].pin.endswith("cores 0")


async def test_without_support_for_binding_no_cores_are_reported(start: Any, launcher: FakeLauncher) -> None:
    registry: Running = await start(guardrail="off")
    async with registry.client.watch() as view:
        await registry.client.create(KEY)
        launcher.workers[0].can_be_bound = False
        await registry.client.create(KEY)
        launcher.workers[1].work(1)
        launcher.workers[0].work(1)
        await view.until(lambda view: launcher.workers[1].cores == [2, 3])
        await view.until(lambda view: view.instances[KEY].active == 1)
        assert view.instances[KEY].pin == "cpu cores 0-3"


async def test_a_fixed_number_of_threads_does_not_depend_on_other_instances(start: Any, launcher: FakeLauncher) -> None:
    registry: Running = await start(guardrail="off")
    await registry.client.create(KEY)
    launcher.workers[0].work(1)
    await registry.client.create(KEY)
    assert [worker.spec.threads for worker in launcher.workers] == [4, 4]


async def test_cores_of_an_ended_instance_are_free_again(start: Any, launcher: FakeLauncher) -> None:
    registry: Running = await start(guardrail="off")
    async with registry.client.watch() as view:
        for _ in range(2):
            await registry.client.create(KEY)
        for worker in launcher.workers:
            worker.work(1)
        await view.until(lambda view: launcher.workers[0].cores == [0, 1])
        await registry.client.unload(f"{KEY}:2")
        await view.until_state(KEY, pb.READY)
        assert launcher.workers[0].cores == [0, 1, 2, 3]
