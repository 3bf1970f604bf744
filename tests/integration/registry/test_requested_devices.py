"""Instances on requested devices: admitted only where they fit, counted, listed."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atelier.errors import InsufficientMemory, LoadFailed
from atelier.machine_memory import Memory
from protos import registry_pb2 as pb
from registry.devices import device_probe as probe
from registry.devices.compute_device import Device
from registry.devices.placement import MemoryNeed
from registry.instances import launch_plan, memory_admission
from registry.models.memory_estimate import Estimate
from tests.integration.registry.conftest import KEY, Running
from tests.support.models.gguf_files import write_gguf
from tests.support.registry.registry_launcher import FakeLauncher, FakeWorker

GB = 2**30
OTHER = "acme/other"


@dataclass
class Machine:
    """Two GPUs of 24 GiB, and main memory. Each running worker uses 10 GiB of a GPU; the next load needs `estimate`."""

    launcher: FakeLauncher
    estimate: Estimate
    memory: int = 64 * GB
    gpus: Callable[[], list[Device]] | None = None

    async def look(self) -> list[Device]:
        return self.gpus() if self.gpus else [gpu(f"cuda:{number}", self._free(str(number))) for number in range(2)]

    def _free(self, number: str) -> int:
        return 24 - sum(10 for worker in self.launcher.workers if worker.lives and number in _visible(worker))


def gpu(id: str, free: int = 24) -> Device:
    return Device(id, "a GPU", 24 * GB, free * GB)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, launcher: FakeLauncher, home: Path) -> Machine:
    write_gguf(home / "models/Acme/Other-GGUF/Other.gguf", name="Other")
    machine = Machine(launcher, Estimate(8 * GB, GB, GB))
    monkeypatch.setattr(probe, "has_gpu_backend", lambda: True)
    monkeypatch.setattr(probe, "probe_local", machine.look)
    monkeypatch.setattr(probe, "machine_memory", lambda: Memory(machine.memory, machine.memory))
    monkeypatch.setattr(memory_admission, "IDLE_SECONDS", 0.001)
    monkeypatch.setattr(launch_plan, "need_of", lambda model, resolved: MemoryNeed(machine.estimate, 31))
    return machine


async def test_a_model_that_does_not_fit_is_rejected_before_a_worker_starts(start: Any, machine: Machine) -> None:
    registry: Running = await start()
    for _ in range(2):
        await registry.client.create(KEY, device="cuda:0")
    with pytest.raises(InsufficientMemory, match=r"cuda:0 lacks 7\.2 GiB of the 10\.0 GiB.*--gpu"):
        await registry.client.create(KEY, device="cuda:0")
    assert (await registry.client.create(KEY, device="cuda:1")).state == pb.READY
    assert [_visible(worker) for worker in machine.launcher.workers] == [["0"], ["0"], ["1"]]


async def test_instances_are_listed_on_the_requested_devices(start: Any, machine: Machine) -> None:
    registry: Running = await start()
    await registry.client.create(KEY, "one", device="cuda:1")
    await registry.client.create(KEY, "both", device="cuda:0,1")
    await registry.client.create(KEY, "partly", device="cuda:0", gpu_layers=4)
    await registry.client.create(KEY, "none", device="cpu")
    assert await _listed(registry) == {
        "cuda:0": ["both", "partly"],
        "cuda:1": ["both", "one"],
        "cpu": ["none", "partly"],
    }


async def test_memory_of_loading_instances_is_counted(start: Any, machine: Machine) -> None:
    machine.gpus = lambda: [gpu("cuda:0"), gpu("cuda:1")]  # no memory is used yet
    machine.estimate = Estimate(18 * GB, GB, GB)
    machine.launcher.ready_at_once = False
    registry: Running = await start()
    loads = [asyncio.create_task(registry.client.create(KEY, device="cuda:0"))]
    workers = [await machine.launcher.next_worker()]
    loads.append(asyncio.create_task(registry.client.create(KEY)))
    workers.append(await machine.launcher.next_worker())
    assert [_visible(worker) for worker in workers] == [["0"], ["1"]]
    with pytest.raises(InsufficientMemory, match="cuda:0 lacks"):
        await registry.client.create(KEY, device="cuda:0")
    await asyncio.gather(*(worker.become_ready() for worker in workers))
    await asyncio.gather(*loads)


async def test_an_idle_instance_on_the_device_is_evicted(start: Any, machine: Machine) -> None:
    registry: Running = await start()
    async with registry.client.watch() as view:
        await registry.client.ensure(KEY)
        await registry.client.ensure(OTHER)
        assert await _listed(registry) == {"cuda:0": [KEY], "cuda:1": [OTHER], "cpu": []}
        machine.estimate = Estimate(18 * GB, GB, GB)
        await registry.client.create(KEY, "big", device="cuda:1")
        await view.until(lambda view: "big" in view.instances and OTHER not in view.instances)
        assert view.instances[KEY].state == pb.READY


async def test_a_load_waits_for_a_busy_instance_on_the_device(start: Any, machine: Machine) -> None:
    registry: Running = await start()
    async with registry.client.watch() as view:
        await registry.client.ensure(KEY)
        worker = machine.launcher.workers[0]
        worker.work(1)
        await view.until(lambda view: view.instances[KEY].active == 1)
        machine.estimate = Estimate(18 * GB, GB, GB)
        big = asyncio.create_task(registry.client.create(KEY, "big", device="cuda:0"))
        await view.until(lambda view: "big" in view.instances)
        worker.work(2)
        await view.until(lambda view: view.instances[KEY].active == 2)  # it runs, and is busy
        assert not big.done()
        worker.work(0)
        assert (await big).state == pb.READY
        await view.until(lambda view: KEY not in view.instances)


async def test_the_wait_for_a_busy_instance_times_out(start: Any, machine: Machine) -> None:
    registry: Running = await start(room_timeout=0.2)
    async with registry.client.watch() as view:
        await registry.client.ensure(KEY)
        machine.launcher.workers[0].work(1)
        await view.until(lambda view: view.instances[KEY].active == 1)
        machine.estimate = Estimate(18 * GB, GB, GB)
        with pytest.raises(InsufficientMemory, match="cuda:0 lacks"):
            await registry.client.create(KEY, "big", device="cuda:0")
        assert view.instances[KEY].state == pb.READY


async def test_an_unknown_device_is_rejected_before_a_worker_starts(start: Any, machine: Machine) -> None:
    registry: Running = await start()
    with pytest.raises(LoadFailed, match="no device cuda:7"):
        await registry.client.create(KEY, device="cuda:7")
    assert machine.launcher.workers == []


async def test_without_known_gpus_the_worker_rejects_the_device(start: Any, machine: Machine) -> None:
    machine.gpus = list
    machine.launcher.load_error = LoadFailed("There is no device cuda:0. llama.cpp sees: CPU.")
    registry: Running = await start()
    with pytest.raises(LoadFailed, match="sees: CPU"):
        await registry.client.create(KEY, device="cuda:0")


async def test_layers_without_devices_are_split_over_all_of_them(start: Any, machine: Machine) -> None:
    registry: Running = await start()
    instance = await registry.client.create(KEY, gpu_layers=12)
    assert (instance.load.device, instance.load.gpu_layers) == ("cuda:0,1", 12)
    assert list(instance.load.tensor_split) == [6, 6]
    assert _visible(machine.launcher.workers[0]) == ["0", "1"]
    assert await _listed(registry) == {"cuda:0": [KEY], "cuda:1": [KEY], "cpu": [KEY]}


async def test_a_requested_split_is_kept(start: Any, machine: Machine) -> None:
    registry: Running = await start()
    instance = await registry.client.create(KEY, device="cuda:1,0", tensor_split=[3, 1])
    assert (instance.load.device, list(instance.load.tensor_split)) == ("cuda:1,0", [3, 1])


async def test_a_relaunched_worker_is_split_as_before(start: Any, machine: Machine) -> None:
    registry: Running = await start()
    await registry.client.create(KEY, "one", device="cuda:0")
    await registry.client.create(KEY, "both", device="cuda:0,1")
    both = machine.launcher.workers[1]
    assert both.spec.load.tensor_split[0] < both.spec.load.tensor_split[1]  # cuda:0 had less free memory
    await registry.client.unload("one")
    async with registry.client.watch() as view:
        await both.crash(-9)
        await view.until(lambda view: view.instances["both"].restarts == 1)
        await view.until_state("both", pb.READY)
    assert machine.launcher.workers[2].spec.load == both.spec.load


async def test_metal_memory_is_checked_although_it_always_looks_free(start: Any, machine: Machine) -> None:
    machine.gpus = lambda: [gpu("metal")]
    registry: Running = await start()
    for name in ("one", "two"):
        await registry.client.create(KEY, name, device="metal")
    with pytest.raises(InsufficientMemory, match="metal lacks"):
        await registry.client.create(KEY, device="metal")
    assert await _listed(registry) == {"metal": ["one", "two"], "cpu": []}


async def test_memory_of_adopted_instances_is_counted(start: Any, machine: Machine, home: Path) -> None:
    machine.gpus = lambda: [gpu("metal")]
    first: Running = await start()
    for name in ("one", "two"):
        await first.client.create(KEY, name, device="metal")
    second: Running = await start(registry_address=f"unix:{home}/second.sock")
    assert await _listed(second) == {"metal": ["one", "two"], "cpu": []}
    with pytest.raises(InsufficientMemory, match="metal lacks"):
        await second.client.create(KEY, device="metal")


async def test_without_a_guardrail_nothing_is_checked_and_everything_is_listed(start: Any, machine: Machine) -> None:
    machine.estimate = Estimate(100 * GB, GB, GB)
    registry: Running = await start(guardrail="off")
    instance = await registry.client.create(KEY, device="cuda:1,0")
    assert (instance.load.device, list(instance.load.tensor_split)) == ("cuda:1,0", [])
    assert await _listed(registry) == {"cuda:0": [KEY], "cuda:1": [KEY], "cpu": []}


async def test_caches_in_main_memory_are_not_shared_between_instances(start: Any, machine: Machine) -> None:
    machine.estimate, machine.memory = Estimate(8 * GB, 8 * GB, GB), 15 * GB
    registry: Running = await start(guardrail="relaxed")
    await registry.client.create(KEY, device="cuda:0", offload_kv=False)
    with pytest.raises(InsufficientMemory, match=r"main memory lacks 3\.0 GiB of the 9\.0 GiB"):
        await registry.client.create(KEY, device="cuda:1", offload_kv=False)


async def _listed(registry: Running) -> dict[str, list[str]]:
    return {device.id: list(device.instances) for device in await registry.client.devices()}


def _visible(worker: FakeWorker) -> list[str]:
    return worker.environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
