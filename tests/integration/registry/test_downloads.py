"""Downloads from a well-behaved and from a faulty hub: the real client with a test double of the hub's HTTP API."""

import asyncio
import hashlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from atelier.errors import (
    DiskFull,
    DownloadDamaged,
    DownloadNotFound,
    HubAccessDenied,
    HubUnavailable,
    InvalidModelFile,
    InvalidRequest,
    NotFound,
    from_message,
)
from protos import registry_pb2 as pb
from registry.hub.download_job import FOLDER
from registry.hub.hub_client import Hub as HubClient
from tests.integration.registry.conftest import Running
from tests.support.models.gguf_files import write_gguf
from tests.support.registry.hub_double import Hub, Repo, hub_double
from tests.support.registry.registry_client import View

ID = "Acme/Fresh-GGUF"
FILE = "Fresh-Q4_K_M.gguf"
KEY = "acme/fresh"
PAUSE, RESUME, CANCEL = (pb.ControlDownloadRequest.Action.Value(name) for name in ("PAUSE", "RESUME", "CANCEL"))


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """A model of a few hundred kilobytes."""
    return write_gguf(tmp_path / "hub.gguf", name="Fresh", tensor_count=6000).read_bytes()


@pytest.fixture
def hub(content: bytes) -> Iterator[Hub]:
    with hub_double() as hub:
        hub.repos[ID] = Repo({FILE: content, "README.md": b"# Fresh", "Fresh-Q8_0.gguf": content + b"\0"})
        yield hub


@pytest.fixture
async def running(hub: Hub, start: Any) -> Running:
    started: Running = await start(hub=HubClient(endpoint=hub.url))
    return started


@pytest.fixture
async def view(running: Running) -> AsyncIterator[View]:
    async with running.client.watch() as view:
        yield view


async def begun(running: Running, model: str = ID, **more: str) -> str:
    reply = await running.client.download(model, **more)
    return reply.download.id


async def completed(running: Running, view: View, model: str = ID, **more: str) -> pb.Model:
    download = await view.until_download(await begun(running, model, **more), pb.DOWNLOAD_COMPLETED)
    return view.models[download.model_key]


async def failed(running: Running, view: View, model: str = ID) -> Exception:
    download = await view.until_download(await begun(running, model), pb.DOWNLOAD_FAILED)
    return from_message(download.error)


def content_of(model: pb.Model) -> bytes:
    return Path(model.path).read_bytes()


def write_content(model: pb.Model, content: bytes) -> None:
    Path(model.path).write_bytes(content)


def scratch(running: Running) -> list[Path]:
    return list((running.config.models_dir / FOLDER).glob("*"))


async def test_a_download_becomes_a_model(running: Running, view: View, content: bytes) -> None:
    model = await completed(running, view)
    assert model.key == KEY
    assert Path(model.path) == running.config.models_dir / ID / FILE
    assert content_of(model) == content
    assert (model.provenance.source, model.provenance.name, model.provenance.revision) == ("hub", ID, "a" * 40)
    assert model.provenance.licence == "apache-2.0"
    assert scratch(running) == []


async def test_every_watcher_receives_the_progress(running: Running, view: View, hub: Hub, content: bytes) -> None:
    hub.hold_after = len(content) // 2
    download_id = await begun(running)
    half = await view.until(lambda view: view.downloads[download_id].done_bytes and view.downloads[download_id])
    assert half.total_bytes == len(content)
    assert 0 < half.done_bytes < len(content)
    assert half.bytes_per_second > 0
    hub.released.set()
    whole = await view.until_download(download_id, pb.DOWNLOAD_COMPLETED)
    assert whole.done_bytes == len(content)


async def test_the_token_is_sent_to_the_hub_only(hub: Hub, start: Any, content: bytes) -> None:
    hub.token = "hf_secret"
    hub.repos[ID].private = True
    running = await start(hub=HubClient("hf_secret", hub.url))
    async with running.client.watch() as view:
        await completed(running, view)
    assert all("authorization" not in headers for _, path, headers in hub.requests if "/cdn/" in path)


async def test_a_quantisation_a_file_and_a_revision_can_be_named(running: Running, view: View, hub: Hub) -> None:
    assert Path((await completed(running, view, f"{ID}@q8_0")).path).name == "Fresh-Q8_0.gguf"
    assert Path((await completed(running, view, f"{ID}:{FILE}", revision="a" * 40)).path).name == FILE
    with pytest.raises(NotFound) as caught:
        await begun(running, ID, revision="b" * 40)
    assert caught.value.param == "revision"


async def test_a_split_model_is_downloaded_with_all_its_parts_and_its_projector(
    running: Running, view: View, hub: Hub, tmp_path: Path, content: bytes
) -> None:
    second = write_gguf(tmp_path / "second.gguf", tensor_count=3).read_bytes()
    parts = {"Q4/Big-Q4_0-00001-of-00002.gguf": content, "Q4/Big-Q4_0-00002-of-00002.gguf": second}
    hub.repos["Acme/Big"] = Repo({**parts, "mmproj-F16.gguf": b"GGUF" + b"\1" * 50})
    model = await completed(running, view, "Acme/Big")
    folder = running.config.models_dir / "Acme/Big"
    assert sorted(path.name for path in folder.iterdir()) == [*(Path(part).name for part in parts), "mmproj-F16.gguf"]
    assert model.size_bytes == len(content) + len(second)


async def test_an_installed_model_is_not_downloaded_again(running: Running, view: View, hub: Hub) -> None:
    await completed(running, view)
    transfers = len(hub.transfers())
    reply = await running.client.download(f"https://huggingface.co/{ID}/blob/main/{FILE}")
    assert reply.model_key == KEY
    assert len(hub.transfers()) == transfers


async def test_a_second_request_for_a_model_returns_the_same_download(running: Running, view: View, hub: Hub) -> None:
    hub.hold_after = 0
    one, other = await asyncio.gather(begun(running), begun(running, f"{ID}@q4_k_m"))
    assert one == other
    hub.released.set()
    await view.until_download(one, pb.DOWNLOAD_COMPLETED)


async def test_a_broken_connection_is_resumed(running: Running, view: View, hub: Hub, content: bytes) -> None:
    cut = len(content) * 6 // 10
    hub.cut_after = [cut]
    model = await completed(running, view)
    assert content_of(model) == content
    first, second = hub.transfers()
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= cut


async def test_without_range_support_a_download_starts_over(
    running: Running, view: View, hub: Hub, content: bytes
) -> None:
    hub.cut_after, hub.ranges = [len(content) // 2], False
    assert content_of(await completed(running, view)) == content


async def test_a_file_that_changed_meanwhile_is_downloaded_from_the_start(
    running: Running, view: View, hub: Hub, content: bytes
) -> None:
    hub.cut_after = [len(content) // 2]
    download_id = await begun(running)
    await view.until(lambda view: view.downloads[download_id].HasField("error"))
    await running.client.control(download_id, PAUSE)
    hub.repos[ID].etags[FILE] = "another"
    await running.client.control(download_id, RESUME)
    await view.until_download(download_id, pb.DOWNLOAD_COMPLETED)
    assert hub.transfers() == [None, None]


async def test_a_wrong_byte_is_detected(running: Running, view: View, hub: Hub) -> None:
    hub.repos[ID].damaged = {FILE}
    error = await failed(running, view)
    assert isinstance(error, DownloadDamaged)
    assert KEY not in view.models
    hub.repos[ID].damaged = set()
    assert (await completed(running, view)).key == KEY  # and is not resumed


async def test_a_file_that_is_not_a_model_is_rejected(running: Running, view: View, hub: Hub) -> None:
    hub.repos[ID] = Repo({FILE: b"GGUF" + b"\xff" * 1000})
    assert isinstance(await failed(running, view), InvalidModelFile)
    assert not (running.config.models_dir / ID).exists()


async def test_a_paused_download_keeps_its_received_bytes(
    running: Running, view: View, hub: Hub, content: bytes
) -> None:
    hub.cut_after = [len(content) // 2]
    download_id = await begun(running)
    await view.until(lambda view: view.downloads[download_id].HasField("error"))  # it waits before the next attempt
    paused = await running.client.control(download_id, PAUSE)
    assert paused.state == pb.DOWNLOAD_PAUSED
    assert paused.done_bytes > 0
    await running.client.control(download_id, RESUME)
    await view.until_download(download_id, pb.DOWNLOAD_COMPLETED)
    assert hub.transfers() == [None, f"bytes={paused.done_bytes}-"]


async def test_a_cancelled_download_leaves_no_files(running: Running, view: View, hub: Hub, content: bytes) -> None:
    hub.cut_after = [len(content) // 2]
    download_id = await begun(running)
    await view.until(lambda view: view.downloads[download_id].HasField("error"))
    await running.client.control(download_id, CANCEL)
    await view.until(lambda view: download_id not in view.downloads)
    assert scratch(running) == []
    with pytest.raises(DownloadNotFound):
        await running.client.control(download_id, RESUME)


async def test_at_most_three_downloads_run_at_once(running: Running, view: View, hub: Hub, content: bytes) -> None:
    hub.hold_after = 0
    names = [f"Acme/M{number}" for number in range(5)]
    for number, name in enumerate(names):
        hub.repos[name] = Repo({f"M{number}-Q4_0.gguf": content + bytes([number])}, commit=f"{number}" * 40)
    ids = [await begun(running, name) for name in names]
    await view.until(lambda view: sum(d.state == pb.DOWNLOAD_DOWNLOADING for d in view.downloads.values()) == 3)
    queued = await view.until(lambda view: [d for d in view.downloads.values() if d.state == pb.DOWNLOAD_QUEUED])
    waiting = queued[0].id
    assert (await running.client.control(waiting, PAUSE)).state == pb.DOWNLOAD_PAUSED
    await running.client.control(waiting, RESUME)
    hub.released.set()
    for download_id in ids:
        await view.until_download(download_id, pb.DOWNLOAD_COMPLETED)
    assert hub.most_at_once <= 3


async def test_the_next_registry_resumes_downloads(hub: Hub, start: Any, content: bytes) -> None:
    first: Running = await start(hub=HubClient(endpoint=hub.url))
    hub.cut_after = [len(content) // 2]
    async with first.client.watch() as view:
        download_id = await begun(first)
        await view.until(lambda view: view.downloads[download_id].HasField("error"))
    await first.server.drain()
    second: Running = await start(hub=HubClient(endpoint=hub.url))
    async with second.client.watch() as view:
        await view.until_download(download_id, pb.DOWNLOAD_COMPLETED)
        assert view.models[KEY].provenance.name == ID
    assert hub.transfers()[1] is not None


async def test_a_file_moved_but_not_recorded_before_a_crash_is_not_downloaded_again(
    running: Running, view: View, hub: Hub, content: bytes
) -> None:
    shelf = running.config.models_dir / ID
    shelf.mkdir(parents=True)
    (shelf / FILE).write_bytes(content)
    assert (await completed(running, view)).provenance.name == ID
    assert hub.transfers() == []


async def test_a_different_file_of_the_same_name_is_replaced(
    running: Running, view: View, hub: Hub, content: bytes
) -> None:
    shelf = running.config.models_dir / ID
    shelf.mkdir(parents=True)
    (shelf / FILE).write_bytes(content[:-1] + b"x")
    assert content_of(await completed(running, view)) == content


async def test_a_newer_revision_replaces_the_older(running: Running, view: View, hub: Hub, tmp_path: Path) -> None:
    await completed(running, view)
    newer = write_gguf(tmp_path / "newer.gguf", name="Fresh", tensor_count=7).read_bytes()
    hub.repos[ID] = Repo({FILE: newer}, commit="b" * 40)
    model = await completed(running, view)
    assert (model.key, model.provenance.revision) == (KEY, "b" * 40)
    assert content_of(model) == newer
    assert len(view.models) == 2  # besides the model that every home of these tests has


@pytest.mark.parametrize(
    ("token", "fault", "error", "message"),
    [
        (None, {"private": True}, NotFound, "private"),
        ("wrong", {"private": True}, NotFound, "private"),
        (None, {"gated": "auto"}, HubAccessDenied, "Accept their terms"),
    ],
)
async def test_a_response_without_the_file_is_explained(
    hub: Hub, start: Any, token: str | None, fault: dict[str, Any], error: type[Exception], message: str
) -> None:
    hub.token = "right"
    for name, value in fault.items():
        setattr(hub.repos[ID], name, value)
    running: Running = await start(hub=HubClient(token, hub.url))
    async with running.client.watch() as view:
        with pytest.raises(error, match=message):
            raise await failed(running, view)


async def test_a_file_missing_on_the_hub_is_reported_at_once(running: Running, hub: Hub) -> None:
    for model in ("Acme/Nothing", f"{ID}@q2_k", f"{ID}:other.gguf"):
        with pytest.raises(NotFound):
            await begun(running, model)
    with pytest.raises(InvalidRequest):
        await begun(running, "not a model")


@pytest.mark.parametrize("status", [200, 401, 403, 429, 500, 503])
async def test_a_server_error_of_the_hub_is_distinguished_from_a_rejection(
    running: Running, hub: Hub, status: int
) -> None:
    hub.status = status
    with pytest.raises((HubUnavailable, HubAccessDenied, NotFound)):
        await begun(running)


async def test_an_unreachable_hub_is_reported(start: Any) -> None:
    running: Running = await start(hub=HubClient(endpoint="http://127.0.0.1:9"))
    with pytest.raises(HubUnavailable, match="cannot be reached"):
        await begun(running)


async def test_a_search_lists_variants_with_sizes(running: Running, hub: Hub, content: bytes) -> None:
    hub.repos["Other/Thing"] = Repo({"thing-Q4_0.gguf": content}, downloads=7)
    hub.repos["Other/Fresher"] = Repo({"fresher-Q4_0.gguf": content}, downloads=1_000_000, gated="manual")
    found = await running.client.search("fresh")
    assert [(each.id, each.downloads, each.gated) for each in found] == [
        ("Other/Fresher", 1_000_000, True),
        (ID, 100, False),
    ]
    assert [(v.quantization, v.size_bytes, v.fits, v.usual) for v in found[1].variants] == [
        ("Q4_K_M", len(content), True, True),
        ("Q8_0", len(content) + 1, True, False),
    ]
    assert [each.id for each in await running.client.search("Other/Thing")] == ["Other/Thing"]


async def test_digests_cover_the_whole_content(content: bytes, running: Running, view: View) -> None:
    await completed(running, view)
    model = running.server.catalogue.require(KEY)
    assert model.provenance is not None
    assert model.provenance.digests == {FILE: f"sha256:{hashlib.sha256(content).hexdigest()}"}


async def test_the_folder_of_an_unknown_download_is_removed(hub: Hub, start: Any, home: Path) -> None:
    stray = home / "models" / FOLDER / "stray"
    stray.mkdir(parents=True)
    (stray / "x.gguf.part").write_bytes(b"x")
    await start(hub=HubClient(endpoint=hub.url))
    assert not stray.exists()


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """The models' folder on a separate file system, with room for exactly three models of these tests."""
    models = home / "models"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1600k", "tmpfs", models], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    yield models
    subprocess.run(["umount", models], check=True)


async def test_a_disk_that_fills_up_keeps_the_received_bytes(
    hub: Hub, small_disk: Path, start: Any, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1_600 * 1024 - len(content) // 2 - 20_000))
    running: Running = await start(hub=HubClient(endpoint=hub.url))
    async with running.client.watch() as view:
        download_id = await begun(running)
        full = await view.until_download(download_id, pb.DOWNLOAD_FAILED)
        assert isinstance(from_message(full.error), DiskFull)
        assert full.done_bytes > 0
        filler.unlink()
        await running.client.control(download_id, RESUME)
        await view.until_download(download_id, pb.DOWNLOAD_COMPLETED)
    assert hub.transfers()[-1] is not None  # it was resumed


async def test_a_full_disk_is_reported_before_the_transfer(
    running: Running, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFull, match="free"):
        await begun(running)
    assert hub.transfers() == []


async def test_verification_finds_a_changed_byte(running: Running, view: View) -> None:
    model = await completed(running, view)
    assert [file.fault for file in await running.client.verify(KEY)] == [""]
    write_content(model, content_of(model)[:-1] + b"x")
    assert "has changed since it was downloaded" in (await running.client.verify(KEY))[0].fault


async def test_a_downloaded_model_can_be_removed_and_downloaded_again(running: Running, view: View) -> None:
    await completed(running, view)
    await running.client.remove(KEY)
    assert (await completed(running, view)).key == KEY


async def test_resuming_twice_causes_one_transfer(running: Running, view: View, hub: Hub, content: bytes) -> None:
    hub.cut_after = [len(content) // 2]
    download_id = await begun(running)
    await view.until(lambda view: view.downloads[download_id].HasField("error"))
    await running.client.control(download_id, PAUSE)
    await asyncio.gather(*(running.client.control(download_id, RESUME) for _ in range(4)))
    await view.until_download(download_id, pb.DOWNLOAD_COMPLETED)
    assert len(hub.transfers()) == 2


async def test_cancelling_and_resuming_at_once_leaves_no_files(
    running: Running, view: View, hub: Hub, content: bytes
) -> None:
    hub.cut_after = [len(content) // 2]
    download_id = await begun(running)
    await view.until(lambda view: view.downloads[download_id].HasField("error"))
    await running.client.control(download_id, PAUSE)
    actions = (running.client.control(download_id, action) for action in (CANCEL, RESUME, PAUSE))
    await asyncio.gather(*actions, return_exceptions=True)
    await view.until(lambda view: download_id not in view.downloads)
    assert await running.server.downloads._store.all() == []


async def test_files_shared_by_several_models_are_kept_for_the_others(
    running: Running, view: View, hub: Hub, content: bytes
) -> None:
    projector = b"GGUF" + b"\1" * 50
    files = {"Fresh-Q4_0.gguf": content, "Fresh-Q8_0.gguf": content + b"\0", "mmproj-F16.gguf": projector}
    hub.repos["Acme/See"] = Repo(files)
    await completed(running, view, "Acme/See@q4_0")
    other = await completed(running, view, "Acme/See@q8_0")
    await running.client.remove(other.key)
    assert (running.config.models_dir / "Acme/See/mmproj-F16.gguf").exists()
