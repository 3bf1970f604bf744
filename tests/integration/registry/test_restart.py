"""The registry as a process: killed, restarted, stopped. Its workers are real processes."""

import asyncio
import os
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from atelier.config import Config
from protos import registry_pb2 as pb
from tests.integration.registry.conftest import KEY
from tests.support.registry.registry_process import launch_registry, registry_process, workers_of


@pytest.fixture
def address(home: Path) -> str:
    return Config(home=home).registry_target


@pytest.fixture(autouse=True)
async def no_worker_stays(home: Path) -> AsyncIterator[None]:
    yield
    left = await asyncio.to_thread(workers_of, home)
    for process in left:
        process.kill()
    assert left == []


async def test_a_killed_registrys_workers_are_adopted(home: Path, address: str) -> None:
    async with registry_process(home, address) as first:
        manual = await first.client.create(KEY)
        await first.client.create(KEY, "named", context_length=512)
        await first.end(signal.SIGKILL)
    async with registry_process(home, address) as second, second.client.watch() as view:
        assert {i.id: i.state for i in view.instances.values()} == {KEY: pb.READY, "named": pb.READY}
        adopted = view.instances[KEY]
        assert (adopted.pid, adopted.token, adopted.address) == (manual.pid, manual.token, manual.address)
        assert adopted.started_at == manual.started_at
        assert view.instances["named"].context_length == 512
        assert (await second.client.ensure(KEY)).pid == manual.pid
        await second.client.unload("named")


async def test_an_adopted_worker_that_dies_is_relaunched(home: Path, address: str) -> None:
    async with registry_process(home, address) as first:
        before = await first.client.ensure(KEY)
        await first.end(signal.SIGKILL)
    async with registry_process(home, address) as second, second.client.watch() as view:
        os.kill(before.pid, signal.SIGKILL)
        await view.until(lambda view: view.instances[KEY].restarts == 1)
        assert (await view.until_state(KEY, pb.READY)).pid != before.pid


async def test_a_worker_that_died_with_the_registry_is_relaunched_if_an_operator_loaded_it(
    home: Path, address: str
) -> None:
    async with registry_process(home, address) as first:
        by_hand = await first.client.create(KEY, "by-hand")
        on_demand = await first.client.create(KEY)
        await first.client.unload(on_demand.id)
        await first.end(signal.SIGKILL)
        await _kill(by_hand.pid)
    async with registry_process(home, address) as second, second.client.watch() as view:
        assert (await view.until_state("by-hand", pb.READY)).pid != by_hand.pid
        assert set(view.instances) == {"by-hand"}


async def test_an_instance_loaded_on_demand_that_died_is_forgotten(home: Path, address: str) -> None:
    async with registry_process(home, address) as first:
        instance = await first.client.ensure(KEY)
        await first.end(signal.SIGKILL)
        await _kill(instance.pid)
    async with registry_process(home, address) as second, second.client.watch() as view:
        assert not view.instances


async def test_a_worker_that_was_loading_when_the_registry_was_killed_becomes_ready(home: Path, address: str) -> None:
    async with registry_process(home, address, script='{"load_seconds": 3}') as first:
        ensure = asyncio.create_task(first.client.ensure(KEY))
        async with first.client.watch() as view:
            loading = await view.until_state(KEY, pb.LOADING)
        await first.end(signal.SIGKILL)
        await asyncio.wait([ensure])
        assert ensure.exception()
    async with registry_process(home, address) as second:
        assert (await second.client.ensure(KEY)).pid == loading.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopped_registry_leaves_no_process_and_no_socket(
    home: Path, address: str, number: signal.Signals
) -> None:
    async with registry_process(home, address) as registry:
        await registry.client.ensure(KEY)
        assert len(await asyncio.to_thread(workers_of, home)) == 1
        assert await registry.end(number) == 0
    assert await asyncio.to_thread(workers_of, home) == []
    assert not Config(home=home).run_dir.exists()
    async with registry_process(home, address) as again, again.client.watch() as view:
        assert not view.instances


async def test_stopping_during_a_load_ends_the_load(home: Path, address: str) -> None:
    async with registry_process(home, address, script='{"load_seconds": 60}') as registry:
        ensure = asyncio.create_task(registry.client.ensure(KEY))
        async with registry.client.watch() as view:
            await view.until_state(KEY, pb.LOADING)
        assert await registry.end(signal.SIGTERM) == 0
        await asyncio.wait([ensure])
        assert ensure.exception()


async def test_the_registry_ends_with_its_parent(home: Path, address: str) -> None:
    async with registry_process(home, address, "--exit-with-parent") as registry:
        await registry.client.ensure(KEY)
        assert registry.process.stdin is not None
        registry.process.stdin.close()
        async with asyncio.timeout(15):
            assert await registry.process.wait() == 0


async def test_a_second_registry_on_one_home_is_rejected(home: Path, address: str) -> None:
    async with registry_process(home, address) as first:
        async with first.client.watch():
            pass
        second = await launch_registry(home)
        _, complaint = await second.communicate()
        assert second.returncode == 1
        assert f"process {first.process.pid}" in complaint.decode()
        assert "ATELIER_HOME" in complaint.decode()


async def test_a_registry_on_a_port_needs_a_token(home: Path) -> None:
    process = await launch_registry(home, registry_address="127.0.0.1:0")
    _, complaint = await process.communicate()
    assert process.returncode == 1
    assert "ATELIER_REGISTRY_TOKEN" in complaint.decode()


async def test_only_their_owner_can_read_tokens(home: Path, address: str) -> None:
    async with registry_process(home, address) as registry:
        await registry.client.ensure(KEY)
        modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in _database_files(home)}
        assert set(modes.values()) == {"0o600"}, modes
        assert stat.S_IMODE(Config(home=home).run_dir.stat().st_mode) == 0o700


async def test_a_workers_environment_has_no_secrets(home: Path, address: str) -> None:
    async with registry_process(home, address, api_key="secret-key", hf_token="secret") as registry:
        instance = await registry.client.ensure(KEY)
        environment = await asyncio.to_thread(psutil.Process(instance.pid).environ)
    assert not [name for name, value in environment.items() if "secret" in value]


async def test_a_suspended_worker_stalls_and_recovers(home: Path, address: str) -> None:
    async with registry_process(home, address, stall_timeout=1.5) as registry, registry.client.watch() as view:
        instance = await registry.client.ensure(KEY)
        os.kill(instance.pid, signal.SIGSTOP)
        try:
            await view.until_state(KEY, pb.STALLED)
        finally:
            os.kill(instance.pid, signal.SIGCONT)
        assert (await view.until_state(KEY, pb.READY)).pid == instance.pid


async def test_a_worker_that_crashes_while_loading_fails_with_the_reason(home: Path, address: str) -> None:
    async with registry_process(home, address, script='{"crash_on_load": true}', restart_limit=1) as registry:
        with pytest.raises(Exception, match="exit code 3"):
            await registry.client.ensure(KEY)


def _database_files(home: Path) -> list[Path]:
    return list(home.glob("registry.db*"))


async def _kill(pid: int) -> None:
    process = psutil.Process(pid)
    process.kill()
    await asyncio.to_thread(process.wait, 5)
