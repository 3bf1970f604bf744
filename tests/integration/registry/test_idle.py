"""Idle instances are unloaded after their TTL or evicted for others; busy ones and those of operators never are."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from atelier.errors import InsufficientMemory
from atelier.machine_memory import Memory
from protos import registry_pb2 as pb
from registry.devices import device_probe as probe
from registry.devices.placement import MemoryNeed
from registry.instances import launch_plan, memory_admission
from registry.models.memory_estimate import Estimate
from tests.integration.registry.conftest import KEY, Running
from tests.support.models.gguf_files import write_gguf
from tests.support.registry.registry_launcher import FakeLauncher

OTHER = "acme/other"
NEED = 100  # bytes that every model takes in these tests


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, home: Path, launcher: FakeLauncher) -> dict[str, int]:
    """The memory available for models; every running worker uses NEED of it."""
    write_gguf(home / "models/Acme/Other-GGUF/Other.gguf", name="Other")
    state = {"room": 10 * NEED}

    def now() -> Memory:
        return Memory(1000 * NEED, max(0, state["room"] - NEED * sum(worker.lives for worker in launcher.workers)))

    monkeypatch.setattr(probe, "machine_memory", now)
    monkeypatch.setattr(memory_admission, "IDLE_SECONDS", 0.001)
    monkeypatch.setattr(launch_plan, "need_of", lambda model, resolved: MemoryNeed(Estimate(NEED, 0, 0), 1))
    return state


async def test_an_instance_loaded_by_a_request_is_unloaded_after_its_ttl(start: Any) -> None:
    registry: Running = await start(idle_ttl=0.01)
    async with registry.client.watch() as view:
        instance = await registry.client.ensure(KEY)
        assert instance.ttl_seconds == pytest.approx(0.01)
        await view.until(lambda view: KEY not in view.instances)


async def test_a_request_may_set_the_ttl(start: Any) -> None:
    registry: Running = await start(idle_ttl=1000)
    async with registry.client.watch() as view:
        await registry.client.ensure(KEY, ttl=0.01)
        await view.until(lambda view: KEY not in view.instances)
        assert not (await registry.client.ensure(KEY, ttl=-1)).HasField("ttl_seconds")


async def test_an_instance_loaded_by_an_operator_is_kept(start: Any) -> None:
    registry: Running = await start(idle_ttl=0.01)
    async with registry.client.watch() as view:
        await registry.client.create(KEY, "kept")
        await registry.client.create(KEY, "brief", ttl=0.01)
        await view.until(lambda view: "brief" not in view.instances)
        assert "kept" in view.instances


async def test_an_idle_model_is_evicted_for_another(start: Any, memory: dict[str, int]) -> None:
    registry: Running = await start(guardrail="relaxed")
    async with registry.client.watch() as view:
        await registry.client.ensure(KEY)
        memory["room"] = NEED + NEED // 2
        await registry.client.ensure(OTHER)
        await view.until(lambda view: KEY not in view.instances)
        await view.until_state(OTHER, pb.READY)


async def test_a_cache_makes_way_before_a_model_is_unloaded(
    start: Any, memory: dict[str, int], launcher: FakeLauncher
) -> None:
    registry: Running = await start(guardrail="relaxed")
    async with registry.client.watch() as view:
        await registry.client.ensure(KEY)
        (worker,) = launcher.workers
        worker.say(cache_ram_bytes=NEED, cache_ram_limit_bytes=4 * NEED)
        await view.until(lambda view: view.instances[KEY].cache_ram_bytes == NEED)
        memory["room"] = NEED + NEED // 2  # what is left is half of what the other model needs
        await registry.client.ensure(OTHER)
        assert worker.released == [NEED // 2]
        await view.until(lambda view: view.instances[KEY].cache_ram_bytes == NEED // 2)
        assert {KEY, OTHER} <= set(view.instances)


async def test_a_cache_is_sized_by_what_models_and_other_caches_leave(
    start: Any, memory: dict[str, int], launcher: FakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_admission, "MIB", 1)
    registry: Running = await start(guardrail="relaxed")
    await registry.client.ensure(KEY)
    await registry.client.create(OTHER, "fixed", cache_ram=0)
    await registry.client.ensure(OTHER)
    specs = {worker.spec.instance_id: worker.spec for worker in launcher.workers}
    assert (specs[KEY].load.cache_ram, specs[KEY].cache_sized) == (9 * NEED // 4, True)
    assert (specs["fixed"].load.cache_ram, specs["fixed"].cache_sized) == (0, False)


async def test_an_instance_loaded_by_an_operator_is_not_evicted(start: Any, memory: dict[str, int]) -> None:
    registry: Running = await start(guardrail="relaxed")
    await registry.client.create(KEY)
    memory["room"] = NEED + NEED // 2
    with pytest.raises(InsufficientMemory, match="to spare"):
        await registry.client.ensure(OTHER)
    memory["room"] = 10 * NEED
    assert (await registry.client.ensure(OTHER)).state == pb.READY  # a failure is not final


async def test_two_loads_are_not_granted_the_same_memory(start: Any, memory: dict[str, int], launcher: Any) -> None:
    memory["room"] = NEED + NEED // 2
    registry: Running = await start(guardrail="relaxed")
    outcomes = []
    for name in (KEY, OTHER):
        try:
            outcomes.append((await registry.client.ensure(name)).state)
        except InsufficientMemory:
            outcomes.append(None)
            assert outcomes == [pb.READY, pb.READY]  # the second replaces the first, which was idle


@pytest.mark.parametrize(("guardrail", "more"), [("balanced", {}), ("custom", {"guardrail_mb": 1})])
async def test_a_guardrail_keeps_memory_free(
    start: Any, memory: dict[str, int], guardrail: str, more: dict[str, Any]
) -> None:
    memory["room"] = 2 * NEED
    registry: Running = await start(guardrail=guardrail, **more)
    with pytest.raises(InsufficientMemory):
        await registry.client.ensure(KEY)


async def test_a_guardrail_can_be_off(start: Any, memory: dict[str, int]) -> None:
    memory["room"] = 0
    registry: Running = await start(guardrail="off")
    assert (await registry.client.ensure(KEY)).state == pb.READY


async def test_a_queued_load_does_not_evict_a_busy_model(
    start: Any, memory: dict[str, int], launcher: FakeLauncher
) -> None:
    registry: Running = await start(guardrail="relaxed")
    async with registry.client.watch() as view:
        await registry.client.ensure(KEY)
        launcher.workers[0].work(1)
        await view.until(lambda view: view.instances[KEY].active == 1)
        memory["room"] = NEED + NEED // 2
        queued = asyncio.create_task(registry.client.ensure(OTHER))
        await view.until(lambda view: OTHER in view.instances)
        launcher.workers[0].work(2)
        await view.until(lambda view: view.instances[KEY].active == 2)  # it runs, and is busy
        assert not queued.done()
        launcher.workers[0].work(0)
        assert (await queued).state == pb.READY
        await view.until(lambda view: KEY not in view.instances)


async def test_the_queue_is_first_in_first_out(
    start: Any, memory: dict[str, int], launcher: FakeLauncher, home: Path
) -> None:
    third = "acme/third"
    write_gguf(home / "models/Acme/Third-GGUF/Third.gguf", name="Third")
    registry: Running = await start(guardrail="relaxed")
    async with registry.client.watch() as view:
        await registry.client.ensure(KEY)
        launcher.workers[0].work(1)
        await view.until(lambda view: view.instances[KEY].active == 1)
        memory["room"] = NEED + NEED // 2
        queued = []
        for name in (third, OTHER):
            queued.append(asyncio.create_task(registry.client.ensure(name)))
            await view.until(lambda view, name=name: name in view.instances)
        launcher.workers[0].work(0)
        await asyncio.gather(*queued)
    assert [worker.spec.instance_id for worker in launcher.workers] == [KEY, third, OTHER]


async def test_a_queued_load_times_out(start: Any, memory: dict[str, int], launcher: FakeLauncher) -> None:
    registry: Running = await start(guardrail="relaxed", room_timeout=0.2)
    async with registry.client.watch() as view:
        await registry.client.ensure(KEY)
        launcher.workers[0].work(1)
        await view.until(lambda view: view.instances[KEY].active == 1)
        memory["room"] = NEED + NEED // 2
        with pytest.raises(InsufficientMemory):
            await registry.client.ensure(OTHER)
        assert view.instances[KEY].state == pb.READY


async def test_memory_is_not_granted_twice_although_mapped_files_look_free(
    start: Any, memory: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "machine_memory", lambda: Memory(NEED + NEED // 2, NEED + NEED // 2))
    registry: Running = await start(guardrail="relaxed")
    await registry.client.create(KEY)
    with pytest.raises(InsufficientMemory):
        await registry.client.ensure(OTHER)
    assert (await registry.client.create(KEY)).id == f"{KEY}:2"  # from the same file, whose pages they share
