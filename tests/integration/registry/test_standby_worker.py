"""The standby worker: a real process, handed a launch, dismissed, or orphaned."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from atelier.config import Config
from atelier.launch import LaunchSpec
from atelier.settings import Load
from protos import inference_pb2 as pb
from registry.instances.launcher import LocalLauncher
from registry.instances.local_worker import LocalWorker
from registry.instances.standby_worker import StandbyWorker
from registry.instances.worker_client import WorkerClient
from tests.support.gateway.gateway_server import short_directory

SECONDS = 20.0


@pytest.fixture
async def launcher() -> AsyncIterator[LocalLauncher]:
    with short_directory() as home:
        launcher = LocalLauncher(Config(home=home, engine="scripted"))
        yield launcher
        await launcher.close()


def spec_for(launcher: LocalLauncher, cores: list[int]) -> LaunchSpec:
    return LaunchSpec(
        instance_id="a/b",
        engine="scripted",
        model_path="",
        load=Load(),
        address=launcher.new_address(),
        token="secret",
        grace_seconds=60,
        cores=cores,
    )


def waiting() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "--spare" in child.cmdline()]


async def spare_of(launcher: LocalLauncher) -> psutil.Process:
    """The standby process, once it has finished its imports and sleeps."""
    launcher.prepare()
    async with asyncio.timeout(SECONDS):
        while not waiting() or not _loaded(waiting()[0], "llguidance"):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
    return waiting()[0]


def _loaded(process: psutil.Process, library: str) -> bool:
    return library in Path(f"/proc/{process.pid}/maps").read_text()


async def ready(spec: LaunchSpec) -> None:
    client = WorkerClient(spec.instance_id, spec.address, spec.token)
    async with asyncio.timeout(SECONDS):
        async for status in client.statuses():
            if status.state == pb.WORKER_READY:
                break
    await client.close()


async def end(worker: LocalWorker) -> None:
    worker.signal(15)
    await asyncio.wait_for(worker.wait(), SECONDS)
    worker.release()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into processes by /proc")
async def test_a_launch_uses_the_standby_process(launcher: LocalLauncher) -> None:
    spare = await spare_of(launcher)
    assert not _loaded(spare, "libllama")  # it applies the environment that pins it to its devices
    core = min(os.sched_getaffinity(0))
    spec = spec_for(launcher, [core])
    worker = await launcher.launch(spec, {"CUDA_VISIBLE_DEVICES": "-1"})
    assert worker.pid == spare.pid
    await ready(spec)
    assert {tuple(os.sched_getaffinity(thread.id)) for thread in spare.threads()} == {(core,)}
    assert "worker_ready" in worker.log_tail()
    await end(worker)


async def test_without_a_standby_process_a_launch_starts_one(launcher: LocalLauncher) -> None:
    spec = spec_for(launcher, [])
    worker = await launcher.launch(spec, {})
    await ready(spec)
    await end(worker)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into processes by /proc")
async def test_a_standby_process_that_died_is_replaced(launcher: LocalLauncher) -> None:
    spare = await spare_of(launcher)
    spare.kill()
    async with asyncio.timeout(SECONDS):
        while spare.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
    spec = spec_for(launcher, [])
    worker = await launcher.launch(spec, {})
    assert worker.pid != spare.pid
    await ready(spec)
    await end(worker)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into processes by /proc")
async def test_no_standby_process_remains_after_the_end(launcher: LocalLauncher) -> None:
    spare = await spare_of(launcher)
    await launcher.close()
    assert not spare.is_running()


def test_a_standby_process_ends_when_its_registry_dies(tmp_path: Path) -> None:
    script = f"""
import os
from registry.instances.standby_worker import StandbyWorker
spare = StandbyWorker({str(tmp_path)!r}, os.environ)
print(spare._child.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    registry = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    pid = int(registry.stdout)
    if psutil.pid_exists(pid):
        psutil.wait_procs([psutil.Process(pid)], timeout=SECONDS)
    assert not psutil.pid_exists(pid)


def test_a_worker_imports_nothing_heavy_before_its_launch() -> None:
    heavy = ["grpc", "jinja2", "llama_cpp", "llguidance", "numpy", "pydantic", "rich", "structlog"]
    script = f"import sys, worker.__main__; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_standby_process_imports_everything_but_llama_cpp() -> None:
    script = (
        "import importlib, sys\n"
        "from worker.__main__ import AHEAD\n"
        "for name in AHEAD: importlib.import_module(name)\n"
        "print('llama_cpp' in sys.modules)\n"
        "ahead = set(sys.modules)\n"
        "import worker.engine.engine\n"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - ahead}))\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    llama, late = found.stdout.splitlines()
    assert llama == "False"
    assert not {"grpc", "jinja2", "numpy", "pydantic", "structlog"} & set(late)


def test_a_standby_process_accepts_only_one_launch(tmp_path: Path) -> None:
    spare = StandbyWorker(tmp_path, os.environ)
    spare.dismiss()
    with pytest.raises(OSError, match="ended"):
        spare.become(None)  # type: ignore[arg-type]
