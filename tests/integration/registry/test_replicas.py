"""Models have their minimum of instances, and more while calls wait."""

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from atelier.errors import Conflict, InvalidRequest, LoadFailed, ModelNotFound
from atelier.machine_memory import Memory
from protos import registry_pb2 as pb
from registry.devices import device_probe as probe
from registry.devices.placement import MemoryNeed
from registry.instances import launch_plan, memory_admission, reconciler, scaling
from registry.models.memory_estimate import Estimate
from tests.integration.registry.conftest import KEY, Running
from tests.support.models.gguf_files import write_gguf
from tests.support.registry.registry_client import View
from tests.support.registry.registry_launcher import FakeLauncher


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens delays of seconds to milliseconds."""
    monkeypatch.setattr(reconciler, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(scaling, "UP_SECONDS", 0.03)
    monkeypatch.setattr(scaling, "DOWN_SECONDS", 0.03)
    monkeypatch.setattr(scaling, "FIRST_DELAY", 0.02)


def ready(ids: Collection[str]) -> Any:
    def hold(view: View) -> bool:
        return {id for id, each in view.instances.items() if each.state == pb.READY} == set(ids)

    return hold


def ids(count: int) -> list[str]:
    return [KEY, *(f"{KEY}:{number}" for number in range(2, count + 1))]


async def test_the_minimum_is_loaded_without_a_request_and_kept_beyond_the_ttl(start: Any) -> None:
    registry: Running = await start(idle_ttl=0.01)
    async with registry.client.watch() as view:
        await registry.client.set_replicas(KEY, (2, 2))
        await view.until(ready(ids(2)))
        await registry.client.set_replicas(KEY, (1, 2))
        await view.until(ready([KEY]))
        await registry.client.set_replicas(KEY, None)
        await view.until(lambda view: not view.instances)


async def test_a_replica_is_added_while_calls_wait_and_removed_afterwards(start: Any, launcher: FakeLauncher) -> None:
    registry: Running = await start(guardrail="off")
    await registry.client.set_replicas(KEY, (0, 2))
    async with registry.client.watch() as view:
        await registry.client.ensure(KEY)
        launcher.workers[0].say(active=8, queued=3)
        await view.until(ready(ids(2)))
        launcher.workers[1].say(active=8, queued=1)
        await view.until(lambda view: view.instances[f"{KEY}:2"].queued == 1)
        launcher.workers[0].rest()
        launcher.workers[1].rest()
        await view.until(ready([KEY]))
        assert len(launcher.workers) == 2  # never more than the maximum


async def test_the_minimum_is_restored_after_crashes_with_delays(start: Any, launcher: FakeLauncher) -> None:
    registry: Running = await start(restart_limit=0)
    launcher.crash_code = 3
    async with registry.client.watch() as view:
        await registry.client.set_replicas(KEY, (1, 1))
        await view.until(lambda view: len(launcher.workers) >= 3)
        launcher.crash_code = None
        await view.until(ready([KEY]))
        await launcher.workers[-1].crash(-9)  # one that had been ready
        await view.until(lambda view: not ready([KEY])(view))
        await view.until(ready([KEY]))


async def test_a_failed_replica_frees_its_name_for_the_next_attempt(start: Any, launcher: FakeLauncher) -> None:
    registry: Running = await start()
    store = registry.server._instance_store
    forget = store.remove

    async def slowly(instance_id: str) -> None:
        await asyncio.sleep(0.05)  # several passes of the reconciler
        await forget(instance_id)

    store.remove = slowly  # type: ignore[method-assign]
    launcher.load_error = LoadFailed("It cannot be read.")
    async with registry.client.watch() as view:
        await registry.client.set_replicas(KEY, (1, 1))
        await view.until(lambda view: len(launcher.workers) >= 3)
    assert {worker.spec.instance_id for worker in launcher.workers} == {KEY}


async def test_the_minimum_is_restored_after_a_restart_of_the_registry(start: Any, launcher: FakeLauncher) -> None:
    first: Running = await start()
    async with first.client.watch() as view:
        await first.client.set_replicas(KEY, (1, 3))
        await view.until(ready([KEY]))
    await first.server.drain()
    second: Running = await start()
    async with second.client.watch() as view:
        assert (view.models[KEY].replicas.least, view.models[KEY].replicas.most) == (1, 3)
        await view.until(ready([KEY]))


async def test_an_added_replica_evicts_no_other_instance(
    start: Any, launcher: FakeLauncher, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(home / "models/Acme/Other-GGUF/Other.gguf", name="Other")
    monkeypatch.setattr(memory_admission, "IDLE_SECONDS", 0.001)
    monkeypatch.setattr(launch_plan, "need_of", lambda model, resolved: MemoryNeed(Estimate(0, 100, 0), 1))
    monkeypatch.setattr(probe, "machine_memory", lambda: Memory(250, 250 - 100 * len(launcher.workers)))
    registry: Running = await start(guardrail="relaxed")
    await registry.client.set_replicas(KEY, (0, 2))
    async with registry.client.watch() as view:
        await registry.client.ensure(KEY)
        await registry.client.ensure("acme/other")  # idle, and in its way
        launcher.workers[0].say(active=8, queued=3)
        failed = await view.until(lambda view: [each for each in view.changes if each.instance.state == pb.FAILED])
        assert failed[0].instance.id == f"{KEY}:2"
        await view.until(
            lambda view: sorted(view.instances) == ["acme/other", KEY]
        )  # it does not remain as a failed instance
        assert len(launcher.workers) == 2


async def test_removing_a_model_with_a_minimum_is_rejected_with_instructions(registry: Running) -> None:
    async with registry.client.watch() as view:
        await registry.client.set_replicas(KEY, (1, 1))
        await view.until(ready([KEY]))
    with pytest.raises(Conflict, match=f"scale {KEY} --off"):
        await registry.client.remove(KEY)


@pytest.mark.parametrize(("limits", "param"), [((2, 1), "min"), ((0, 0), "max"), ((0, 65), "max")])
async def test_invalid_limits_are_rejected(registry: Running, limits: tuple[int, int], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await registry.client.set_replicas(KEY, limits)
    assert refused.value.param == param


async def test_limits_need_an_existing_model(registry: Running) -> None:
    with pytest.raises(ModelNotFound):
        await registry.client.set_replicas("acme/none", (1, 1))
