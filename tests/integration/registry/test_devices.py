"""The machine's devices: probed by a separate process, and the instances placed on them."""

import asyncio
import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from atelier.errors import InsufficientMemory
from atelier.hardware import Readings
from registry.devices import device_probe as probe
from registry.devices.compute_device import Device
from registry.devices.device_probe import probe_local, probe_server, read_devices, read_report
from registry.devices.pinning import within_visible
from registry.devices.placement import MemoryNeed
from registry.instances import launch_plan, memory_admission
from registry.models.memory_estimate import Estimate
from tests.integration.registry.conftest import KEY, Running
from tests.support.worker.fake_gpus import fake_ggml_gpus, fake_nvml

GB = 2**30


def entry(name: str, kind: str = "gpu") -> dict[str, Any]:
    return {"name": name, "description": "x", "kind": kind, "memory_total": 8, "memory_free": 4, "readings": None}


def test_devices_have_the_names_used_to_pin_them() -> None:
    names = ["CUDA1", "ROCm0", "Vulkan2", "MTL0", "BLAS", "SYCL0"]
    said = json.dumps([*map(entry, names), entry("CPU", "cpu")]).encode()
    assert [device.id for device in read_devices(read_report(said))] == ["cuda:1", "rocm:0", "vulkan:2", "metal"]


def test_integrated_gpus_are_marked() -> None:
    said = json.dumps([entry("Vulkan0"), entry("Vulkan1", "integrated gpu")]).encode()
    assert [(device.id, device.integrated) for device in read_devices(read_report(said))] == [
        ("vulkan:0", False),
        ("vulkan:1", True),
    ]


@pytest.mark.parametrize("said", [b"", b"{}", b"no"])
def test_output_other_than_a_device_list_is_rejected(said: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting value|did not print a list"):
        read_report(said)


async def test_a_real_worker_reports_the_devices_of_this_llama_cpp_build(registry: Running) -> None:
    assert await probe_local() == []  # tests run on CPU builds
    (main,) = await registry.client.devices()
    assert main.id == "cpu"
    assert 0 < main.memory_free <= main.memory_total


@pytest.mark.skipif(sys.platform != "linux", reason="finds NVML by LD_LIBRARY_PATH")
async def test_each_gpu_has_the_readings_of_its_bus_id(
    registry: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**fake_nvml(tmp_path), **fake_ggml_gpus(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(probe, "has_gpu_backend", lambda: True)
    devices = {device.id: device for device in await registry.client.devices()}
    assert {id: device.readings.uuid for id, device in devices.items() if device.HasField("readings")} == {
        "cuda:0": "GPU-2",
        "cuda:1": "GPU-1",
    }
    assert list(devices) == ["cuda:0", "cuda:1", "vulkan:0", "cpu"]
    assert (devices["cuda:1"].memory_total, devices["cuda:1"].memory_free) == (79 * GB, 70 * GB)
    idle, unknown = devices["cuda:1"].readings, devices["cuda:0"].readings
    assert (idle.HasField("memory_utilization_percent"), idle.memory_utilization_percent) == (True, 0)
    assert not unknown.HasField("memory_utilization_percent")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """A machine with two GPUs of 24 GiB, on which every model needs 10."""
    gpus = [Device(f"cuda:{number}", "a GPU", 24 * GB, 24 * GB) for number in range(2)]

    async def look() -> list[Device]:
        return gpus

    monkeypatch.setattr(probe, "has_gpu_backend", lambda: True)
    monkeypatch.setattr(probe, "probe_local", look)
    monkeypatch.setattr(memory_admission, "IDLE_SECONDS", 0.001)
    monkeypatch.setattr(launch_plan, "need_of", lambda model, resolved: MemoryNeed(Estimate(8 * GB, GB, GB), 32))
    return gpus


async def test_instances_of_one_model_are_spread_over_gpus(two_gpus: list[Device], start: Any, launcher: Any) -> None:
    registry: Running = await start()
    one = await registry.client.create(KEY)
    other = await registry.client.create(KEY)
    assert (one.load.device, other.load.device) == ("cuda:0", "cuda:1")
    visible = [worker.environment["CUDA_VISIBLE_DEVICES"] for worker in launcher.workers]
    assert visible == ["0", "1"]
    devices = {device.id: list(device.instances) for device in await registry.client.devices()}
    assert devices == {"cuda:0": [KEY], "cuda:1": [f"{KEY}:2"], "cpu": []}


async def test_a_model_that_fits_on_no_gpu_is_split(
    two_gpus: list[Device], start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_plan, "need_of", lambda model, resolved: MemoryNeed(Estimate(30 * GB, GB, GB), 32))
    registry: Running = await start()
    instance = await registry.client.create(KEY)
    assert instance.load.device == "cuda:0,1"
    assert list(instance.load.tensor_split) == [0.5, 0.5]


async def test_idle_instances_are_evicted_from_a_full_gpu(
    two_gpus: list[Device], start: Any, launcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look() -> list[Device]:
        free = [2 * GB if any(worker.lives for worker in launcher.workers) else 24 * GB, 2 * GB]
        return [Device(f"cuda:{number}", "a GPU", 24 * GB, left) for number, left in enumerate(free)]

    monkeypatch.setattr(probe, "probe_local", look)
    registry: Running = await start()
    async with registry.client.watch() as view:
        await registry.client.ensure(KEY)
        await registry.client.create(KEY, "other")
        await view.until(lambda view: KEY not in view.instances)
        await view.until(lambda view: view.instances["other"].load.device == "cuda:0")


async def test_a_requested_device_is_kept(two_gpus: list[Device], start: Any) -> None:
    registry: Running = await start()
    assert (await registry.client.create(KEY, device="cuda:1")).load.device == "cuda:1"


async def test_a_load_without_room_anywhere_is_rejected(
    two_gpus: list[Device], start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_plan, "need_of", lambda model, resolved: MemoryNeed(Estimate(10_000 * GB, GB, GB), 32))
    registry: Running = await start()
    with pytest.raises(InsufficientMemory, match="the GPU with the most"):
        await registry.client.ensure(KEY)


async def test_an_adopted_instance_keeps_its_device(two_gpus: list[Device], start: Any, launcher: Any) -> None:
    first: Running = await start()
    await first.client.create(KEY)
    (record,) = await first.server._instance_store.all()
    assert record.placement is not None
    assert (record.placement["device"], list(record.placement["memory"])) == ("cuda:0", ["cuda:0"])


async def test_a_probe_without_an_answer_returns_the_known_devices_without_readings(
    two_gpus: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    two_gpus[0] = replace(two_gpus[0], readings=Readings(temperature_celsius=64))
    asked = probe.DeviceProbe()
    assert list((await asked.inventory()).gpus) == two_gpus

    async def no_answer() -> None:
        return None

    monkeypatch.setattr(probe, "probe_local", no_answer)
    asked.forget()
    assert [(gpu.id, gpu.readings) for gpu in (await asked.inventory()).gpus] == [("cuda:0", None), ("cuda:1", None)]


class Unkillable:
    """A process that is blocked in a driver and cannot be killed."""

    pid, returncode = 1, None

    def kill(self) -> None: ...

    async def wait(self) -> None:
        await asyncio.Event().wait()

    async def communicate(self) -> tuple[bytes, bytes]:
        await asyncio.Event().wait()
        raise AssertionError


async def test_an_unkillable_process_does_not_block_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    async def started(*command: str, **options: Any) -> Unkillable:
        return Unkillable()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started)
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(probe, "KILL_SECONDS", 0.01)
    async with asyncio.timeout(5):
        assert await probe_local() is None


async def test_a_probe_that_cannot_start_a_process_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*command: str, **options: Any) -> None:
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
    with capture_logs() as logs:
        assert await probe_local() is None
        assert await probe_server(0, "a:1") is None
    assert [each["of"] for each in logs] == ["here", "a:1"]


@dataclass
class Servers:
    """Two RPC servers with scripted answers."""

    answers: list[list[Device] | None]
    asked: list[int] = field(default_factory=list)

    async def ask(self, number: int, address: str) -> list[Device] | None:
        self.asked.append(number)
        return self.answers[number]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    servers = Servers([[Device(f"rpc:{number}", "lent", 24 * GB, 24 * GB)] for number in range(2)])
    monkeypatch.setattr(probe, "probe_server", servers.ask)
    monkeypatch.setattr(memory_admission, "IDLE_SECONDS", 0.001)
    monkeypatch.setattr(launch_plan, "need_of", lambda model, resolved: MemoryNeed(Estimate(8 * GB, GB, GB), 32))
    return servers


async def test_an_rpc_server_in_use_is_not_probed_and_has_no_free_memory(servers: Servers) -> None:
    asked = probe.DeviceProbe(["a:1", "b:2"])
    await asked.inventory()
    asked.forget()
    servers.asked.clear()
    lent = (await asked.inventory(lambda: ["rpc:0"])).gpus
    assert [(gpu.id, gpu.free) for gpu in lent] == [("rpc:0", 0), ("rpc:1", 24 * GB)]
    assert servers.asked == [1]


async def test_an_rpc_server_that_does_not_answer_is_not_listed(servers: Servers) -> None:
    asked = probe.DeviceProbe(["a:1", "b:2"])
    await asked.inventory()
    asked.forget()
    servers.answers[0] = None
    assert [gpu.id for gpu in (await asked.inventory()).gpus] == ["rpc:1"]


async def test_an_rpc_server_taken_by_an_instance_during_the_probe_is_still_listed(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, having = probe.DeviceProbe(["a:1"]), set[str]()
    await asked.inventory()
    asked.forget()

    async def too_late(number: int, address: str) -> None:
        having.add("rpc:0")

    monkeypatch.setattr(probe, "probe_server", too_late)
    assert [(gpu.id, gpu.free) for gpu in (await asked.inventory(lambda: having)).gpus] == [("rpc:0", 0)]


async def test_each_rpc_server_serves_one_instance(servers: Servers, start: Any) -> None:
    registry: Running = await start(rpc_servers=["a:1", "b:2"])
    placed = [(await registry.client.create(KEY)).load.device for _ in range(3)]
    assert placed == ["rpc:0", "rpc:1", "cpu"]
    with pytest.raises(InsufficientMemory, match="rpc:0 lacks"):
        await registry.client.create(KEY, device="rpc:0")
    free = {device.id: device.memory_free for device in await registry.client.devices()}
    assert (free["rpc:0"], free["rpc:1"]) == (0, 0)


async def test_an_idle_instance_is_evicted_from_its_rpc_server_for_a_larger_one(
    servers: Servers, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry: Running = await start(rpc_servers=["a:1"])
    async with registry.client.watch() as view:
        await registry.client.ensure(KEY)
        monkeypatch.setattr(launch_plan, "need_of", lambda model, resolved: MemoryNeed(Estimate(16 * GB, GB, GB), 32))
        assert (await registry.client.create(KEY, "larger", device="rpc:0")).load.device == "rpc:0"
        await view.until(lambda view: list(view.instances) == ["larger"])


async def test_a_probe_that_began_before_a_change_is_not_used_after_it(
    two_gpus: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow_look() -> list[Device]:
        seen = list(two_gpus)
        begun.set()
        await go_on.wait()
        return seen

    monkeypatch.setattr(probe, "probe_local", slow_look)
    asked = probe.DeviceProbe()
    earlier = asyncio.create_task(asked.inventory())
    await begun.wait()
    two_gpus[0] = replace(two_gpus[0], free=GB)
    asked.forget()
    later = asyncio.create_task(asked.inventory())
    go_on.set()
    assert (await earlier).gpus[0].free == 24 * GB
    assert (await later).gpus[0].free == GB


def test_device_numbers_count_only_the_visible_devices() -> None:
    pinned = {"CUDA_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "-1"}
    assert within_visible({"CUDA_VISIBLE_DEVICES": "3,GPU-5"}, pinned) == {**pinned, "CUDA_VISIBLE_DEVICES": "GPU-5"}
    assert within_visible({}, pinned) == pinned


@pytest.mark.parametrize(("pinned", "servers"), [("1", "b:2"), ("0,1", "a:1,b:2"), ("7", "")])
def test_a_worker_receives_the_addresses_of_its_rpc_devices(pinned: str, servers: str) -> None:
    visible = within_visible({"ATELIER_RPC_SERVERS": "a:1,b:2"}, {"ATELIER_RPC_SERVERS": pinned})
    assert visible == {"ATELIER_RPC_SERVERS": servers}
