"""Workers that crash, become silent, or never become ready."""

import asyncio
from typing import Any

import pytest

from atelier.errors import LoadFailed, Unavailable
from protos import inference_pb2 as pb2
from protos import registry_pb2 as pb
from tests.integration.registry.conftest import KEY, Running
from tests.support.registry.registry_launcher import FakeLauncher


async def test_a_crashed_worker_is_relaunched(registry: Running, launcher: FakeLauncher) -> None:
    await registry.client.ensure(KEY)
    async with registry.client.watch() as view:
        await launcher.workers[0].crash(-9)
        instance = await view.until(lambda view: view.instances[KEY] if view.instances[KEY].restarts else None)
        assert instance.error.message.startswith("The worker was killed by SIGKILL")
        instance = await view.until_state(KEY, pb.READY)
        assert instance.restarts == 1
        assert not instance.HasField("error")
        assert view.states_of(KEY) == ["RESTARTING", "STARTING", "READY"]
        # Its memory on a device is free meanwhile, and reserved for it.
        assert view.changes[0].instance.load_progress == 0
    assert launcher.workers[1].spec.token == instance.token != launcher.workers[0].spec.token


async def test_an_ensure_waits_for_the_restart(registry: Running, launcher: FakeLauncher) -> None:
    await registry.client.ensure(KEY)
    launcher.ready_at_once = False
    async with registry.client.watch() as view:
        await launcher.workers[0].crash(-11)
        await view.until(lambda view: view.instances[KEY].restarts == 1)
        ensure = asyncio.create_task(registry.client.ensure(KEY))
        await launcher.next_worker()
        await (await launcher.next_worker()).become_ready()
        assert (await ensure).restarts == 1


async def test_a_crash_loop_ends_as_failed_with_the_reason(start: Any, launcher: FakeLauncher) -> None:
    launcher.crash_code = 3
    registry: Running = await start(restart_limit=2)
    with pytest.raises(LoadFailed, match=r"exit code 3.*a last word.*3 times in a row"):
        await registry.client.ensure(KEY)
    assert len(launcher.workers) == 3
    async with registry.client.watch() as view:
        assert view.instances[KEY].state == pb.FAILED
        assert "exit code 3" in view.instances[KEY].error.message


async def test_a_silent_worker_is_skipped_until_it_reports(start: Any, launcher: FakeLauncher) -> None:
    registry: Running = await start(stall_timeout=0.4)
    await registry.client.ensure(KEY)
    async with registry.client.watch() as view:
        launcher.workers[0].fall_silent()
        await view.until_state(KEY, pb.STALLED)
        with pytest.raises(Unavailable):
            await registry.client.ensure(KEY)
        waiting = asyncio.create_task(registry.client.ensure(KEY))
        launcher.workers[0].fall_silent(False)
        assert (await waiting).state == pb.READY
        await view.until_state(KEY, pb.READY)
    assert len(launcher.workers) == 1


async def test_a_busy_worker_without_steps_stalls(start: Any, launcher: FakeLauncher) -> None:
    registry: Running = await start(stall_timeout=0.4)
    await registry.client.ensure(KEY)
    async with registry.client.watch() as view:
        launcher.workers[0].say(active=1, steps=5)
        await view.until_state(KEY, pb.STALLED)
        launcher.workers[0].say(steps=6)
        await view.until_state(KEY, pb.READY)


async def test_a_load_that_takes_too_long_is_killed(start: Any, launcher: FakeLauncher) -> None:
    launcher.ready_at_once = False
    registry: Running = await start(load_timeout=0.3)
    with pytest.raises(LoadFailed, match=r"not loaded within 0\.3 s"):
        await registry.client.ensure(KEY)
    assert [number.name for number in launcher.workers[0].signals] == ["SIGTERM"]


async def test_load_progress_is_published(registry: Running, launcher: FakeLauncher) -> None:
    launcher.ready_at_once = False
    ensure = asyncio.create_task(registry.client.ensure(KEY))
    worker = await launcher.next_worker()
    async with registry.client.watch() as view:
        worker.say(load_progress=0.5)
        instance = await view.until(lambda view: view.instances[KEY] if view.instances[KEY].load_progress else None)
        assert (instance.state, instance.load_progress) == (pb.LOADING, 0.5)
        await worker.become_ready()
        await ensure


async def test_counts_are_published_rarely_and_the_last_one_always(registry: Running, launcher: FakeLauncher) -> None:
    await registry.client.ensure(KEY)
    async with registry.client.watch() as view:
        for number in range(1, 30):
            launcher.workers[0].say(active=number, steps=number)
            await asyncio.sleep(0)
        await view.until(lambda view: view.instances[KEY].active == 29)
        assert len(view.changes) <= 4


async def test_a_worker_ended_by_another_process_is_relaunched(start: Any, launcher: FakeLauncher) -> None:
    registry: Running = await start(load_timeout=0.3, stall_timeout=0.4)
    await registry.client.ensure(KEY)
    async with registry.client.watch() as view:
        launcher.workers[0].fall_silent()
        await view.until_state(KEY, pb.STALLED)  # the load timeout has passed now, and must not apply
        launcher.workers[0].fall_silent(False)
        launcher.workers[0].say(state=pb2.WORKER_DRAINING)
        await view.until_state(KEY, pb.RESTARTING)
        await launcher.workers[0].crash(0)
        await view.until(lambda view: view.instances[KEY].restarts == 1)
        await view.until_state(KEY, pb.READY)
