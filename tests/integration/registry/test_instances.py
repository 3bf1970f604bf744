"""Instances: ensured, created, unloaded. Real gRPC, scripted workers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from atelier.errors import (
    AlreadyExists,
    InstanceNotFound,
    InsufficientMemory,
    InvalidRequest,
    LoadFailed,
    ModelNotFound,
)
from protos import registry_pb2 as pb
from tests.integration.registry.conftest import KEY, Running
from tests.support.models.gguf_files import write_gguf
from tests.support.registry.registry_launcher import FakeLauncher


async def test_ensure_starts_an_instance_and_returns_its_address(registry: Running, launcher: FakeLauncher) -> None:
    instance = await registry.client.ensure(KEY)
    worker = launcher.workers[0]
    assert (instance.id, instance.model_key, instance.state, instance.on_demand) == (KEY, KEY, pb.READY, True)
    assert (instance.address, instance.token, instance.pid) == (worker.spec.address, worker.spec.token, worker.pid)
    assert (instance.context_length, instance.parallel, instance.gpu_layers) == (2048, 8, 7)
    assert instance.load_seconds == 0.5
    assert len(instance.token) == 32


async def test_requests_for_one_model_coalesce_into_one_load(registry: Running, launcher: FakeLauncher) -> None:
    instances = await asyncio.gather(*(registry.client.ensure(KEY) for _ in range(20)))
    assert {instance.id for instance in instances} == {KEY}
    assert len(launcher.workers) == 1


async def test_a_ready_instance_is_returned_at_once(registry: Running, launcher: FakeLauncher) -> None:
    first = await registry.client.ensure(KEY)
    assert await registry.client.ensure(KEY) == first
    assert len(launcher.workers) == 1


async def test_a_waiter_that_disconnects_does_not_affect_the_others(registry: Running, launcher: FakeLauncher) -> None:
    launcher.ready_at_once = False
    leaver = asyncio.create_task(registry.client.ensure(KEY))
    stayer = asyncio.create_task(registry.client.ensure(KEY))
    worker = await launcher.next_worker()
    leaver.cancel()
    await asyncio.wait([leaver])
    await worker.become_ready()
    assert (await stayer).state == pb.READY
    assert len(launcher.workers) == 1


async def test_a_load_continues_when_its_only_waiter_disconnects(registry: Running, launcher: FakeLauncher) -> None:
    launcher.ready_at_once = False
    leaver = asyncio.create_task(registry.client.ensure(KEY))
    worker = await launcher.next_worker()
    leaver.cancel()
    await asyncio.wait([leaver])
    async with registry.client.watch() as view:
        await worker.become_ready()
        await view.until_state(KEY, pb.READY)


async def test_a_failed_load_reaches_every_waiter_and_is_not_repeated(
    registry: Running, launcher: FakeLauncher
) -> None:
    launcher.load_error = InsufficientMemory("It needs 900 GiB.")
    waits = [asyncio.create_task(registry.client.ensure(KEY)) for _ in range(5)]
    outcomes = await asyncio.gather(*waits, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {InsufficientMemory}
    assert {str(outcome) for outcome in outcomes} == {"It needs 900 GiB."}
    assert len(launcher.workers) == 1


async def test_a_failed_instance_stays_visible_until_it_is_loaded_again(
    registry: Running, launcher: FakeLauncher
) -> None:
    launcher.load_error = LoadFailed("unknown architecture")
    async with registry.client.watch() as view:
        with pytest.raises(LoadFailed):
            await registry.client.ensure(KEY)
        failed = await view.until_state(KEY, pb.FAILED)
        assert failed.error.message == "unknown architecture"
        launcher.load_error = None
        assert (await registry.client.ensure(KEY)).state == pb.READY
        assert len(launcher.workers) == 2


async def test_an_instance_loaded_by_a_request_has_the_requested_settings(registry: Running) -> None:
    loaded = await registry.client.ensure(KEY, context_length=512)
    assert (loaded.context_length, dict(loaded.load_origins)["context_length"]) == (512, "request")
    assert (await registry.client.ensure(KEY, context_length=1024)).context_length == 512  # it is loaded already


@pytest.mark.parametrize(("load", "param"), [({"context_length": 4096}, "context_length"), ({"lora": ["a"]}, "lora")])
async def test_a_request_whose_settings_cannot_be_loaded_is_rejected(
    registry: Running, load: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await registry.client.ensure(KEY, **load)
    assert refused.value.param == param
    assert (await registry.client.ensure(KEY)).state == pb.READY


async def test_a_load_that_failed_with_one_requests_settings_is_tried_with_the_next_ones(
    registry: Running, launcher: FakeLauncher
) -> None:
    launcher.load_error = InsufficientMemory("It needs 900 GiB.")
    with pytest.raises(InsufficientMemory):
        await registry.client.ensure(KEY, context_length=1024)
    launcher.load_error = None
    assert (await registry.client.ensure(KEY)).context_length == 2048
    assert launcher.workers[-1].spec.load.context_length == 2048


async def test_explicit_loads_are_numbered(registry: Running) -> None:
    ids = [(await registry.client.create(KEY)).id for _ in range(3)]
    assert ids == [KEY, f"{KEY}:2", f"{KEY}:3"]
    assert not (await registry.client.ensure(f"{KEY}:2")).on_demand


async def test_a_failed_explicit_load_frees_its_name_for_the_next(registry: Running, launcher: FakeLauncher) -> None:
    launcher.load_error = LoadFailed("no")
    with pytest.raises(LoadFailed):
        await registry.client.create(KEY)
    launcher.load_error = None
    assert (await registry.client.create(KEY)).id == KEY


async def test_an_identifier_is_an_instances_name(registry: Running) -> None:
    assert (await registry.client.create(KEY, "night-shift")).id == "night-shift"
    assert (await registry.client.ensure("night-shift")).model_key == KEY
    with pytest.raises(AlreadyExists) as refusal:
        await registry.client.create(KEY, "night-shift")
    assert refusal.value.param == "identifier"


async def test_an_identifier_may_not_be_another_models_key(start: Any, home: Any) -> None:
    write_gguf(home / "models/Acme/Other-GGUF/Other.Q4_1.gguf")
    registry: Running = await start()
    with pytest.raises(AlreadyExists):
        await registry.client.create(KEY, "acme/other")


@pytest.mark.parametrize("identifier", ["../x", "a b", "", "a/b/c", "x" * 300, "a\0b"])
async def test_an_invalid_identifier_is_rejected(registry: Running, identifier: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await registry.client.create(KEY, identifier)
    assert refusal.value.param == "identifier"


async def test_settings_reach_the_worker(registry: Running, launcher: FakeLauncher) -> None:
    instance = await registry.client.create(KEY, context_length=512, parallel=2, cores="0", device="cpu")
    worker = launcher.workers[0]
    assert (worker.spec.load.context_length, worker.spec.load.parallel, worker.spec.cores) == (512, 2, [0])
    assert worker.environment["CUDA_VISIBLE_DEVICES"] == "-1"
    assert (instance.load.context_length, instance.pin) == (512, "cpu cores 0")


async def test_each_instance_has_its_own_cache_directory(registry: Running, launcher: FakeLauncher, home: Path) -> None:
    for _ in range(2):
        await registry.client.create(KEY)
    directories = [Path(worker.spec.cache_dir) for worker in launcher.workers]
    assert directories == [home / "cache/acme--tiny", home / "cache/acme--tiny~2"]


async def test_the_context_length_is_the_models_when_that_is_shorter_than_the_default(registry: Running) -> None:
    assert (await registry.client.ensure(KEY)).load.context_length == 2048


@pytest.mark.parametrize(
    ("param", "value"),
    [("context_length", 2049), ("context_length", 1), ("parallel", 0), ("device", "moon"), ("cores", "4000")],
)
async def test_invalid_settings_are_rejected_by_name(
    registry: Running, launcher: FakeLauncher, param: str, value: object
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await registry.client.create(KEY, **{param: value})
    assert refusal.value.param == param
    assert launcher.workers == []


async def test_a_draft_model_reaches_the_worker_as_a_file(start: Any, home: Path, launcher: FakeLauncher) -> None:
    small = write_gguf(home / "models/Acme/Small-GGUF/Small.Q4_1.gguf")
    registry = await start()
    instance = await registry.client.create(KEY, draft_model="small")
    assert (instance.load.draft_model, instance.load.speculation) == ("acme/small", "draft_model")
    assert launcher.workers[0].spec.draft_model_path == str(small)
    plain = await registry.client.create(KEY)
    assert not plain.load.HasField("draft_model")
    assert launcher.workers[1].spec.draft_model_path is None


async def test_an_unknown_draft_model_is_not_found_and_similar_names_are_suggested(
    start: Any, home: Path, launcher: FakeLauncher
) -> None:
    write_gguf(home / "models/Acme/Small-GGUF/Small.Q4_1.gguf")
    registry = await start()
    with pytest.raises(ModelNotFound, match=r"draft_model.*acme/small") as refusal:
        await registry.client.create(KEY, draft_model="smalk")
    assert refusal.value.param == "draft_model"
    assert launcher.workers == []


@pytest.mark.parametrize(
    "load",
    [
        {"speculation": "draft_model"},
        {"speculation": "prompt_lookup", "draft_model": KEY},
        {"speculation": "off", "draft_model": KEY},
        {"draft_model": "embedder"},
    ],
)
async def test_an_incompatible_draft_model_is_rejected(
    start: Any, home: Path, launcher: FakeLauncher, load: dict[str, str]
) -> None:
    write_gguf(home / "models/acme/embedder/embedder.gguf", architecture="bert")
    registry = await start()
    with pytest.raises(InvalidRequest) as refusal:
        await registry.client.create(KEY, **load)
    assert refusal.value.param == "draft_model"
    assert launcher.workers == []


async def test_an_unknown_model_is_not_found(registry: Running) -> None:
    for name in ("acme/tine", "tiny", f"{KEY}:2", ""):
        with pytest.raises(ModelNotFound):
            await registry.client.ensure(name)
    with pytest.raises(ModelNotFound, match="acme/tiny"):
        await registry.client.create("acme/tinny")


async def test_unload_publishes_stopping_before_the_worker_is_stopped(
    registry: Running, launcher: FakeLauncher
) -> None:
    await registry.client.ensure(KEY)
    async with registry.client.watch() as view:
        await registry.client.unload(KEY, grace_seconds=7)
        await view.until(lambda view: KEY not in view.instances)
        assert view.states_of(KEY)[-1] == "STOPPING"
    assert launcher.workers[0].shutdowns == [7]
    with pytest.raises(InstanceNotFound):
        await registry.client.unload(KEY)


async def test_a_worker_that_does_not_exit_is_killed(
    registry: Running, launcher: FakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.instances.worker_exit.AFTER_GRACE_SECONDS", 0.05)
    await registry.client.ensure(KEY)
    launcher.workers[0].ignores_shutdown = True
    await registry.client.unload(KEY)
    assert [number.name for number in launcher.workers[0].signals] == ["SIGTERM"]


async def test_an_ensure_during_an_unload_starts_a_new_worker(registry: Running, launcher: FakeLauncher) -> None:
    await registry.client.ensure(KEY)
    launcher.workers[0].ignores_shutdown = True
    async with registry.client.watch() as view:
        unload = asyncio.create_task(registry.client.unload(KEY, grace_seconds=1))
        await view.until_state(KEY, pb.STOPPING)
        ensure = asyncio.create_task(registry.client.ensure(KEY))
        await launcher.workers[0].crash(0)
        await unload
        assert (await ensure).token == launcher.workers[1].spec.token


async def test_unloading_a_loading_model_ends_the_wait_for_it(registry: Running, launcher: FakeLauncher) -> None:
    launcher.ready_at_once = False
    ensure = asyncio.create_task(registry.client.ensure(KEY))
    await launcher.next_worker()
    await registry.client.unload(KEY)
    outcome = (await asyncio.gather(ensure, return_exceptions=True))[0]
    assert "being unloaded" in str(outcome)


async def test_only_ready_instances_serve_if_there_are_any(registry: Running, launcher: FakeLauncher) -> None:
    await registry.client.ensure(KEY)
    launcher.ready_at_once = False
    second = asyncio.create_task(registry.client.create(KEY))
    worker = (await launcher.next_worker(), await launcher.next_worker())[1]
    assert (await registry.client.ensure(KEY)).id == KEY
    await worker.become_ready()
    assert (await second).id == f"{KEY}:2"
