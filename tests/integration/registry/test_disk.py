"""The disk space that the server's files use, as the registry reports it."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protos import registry_pb2 as pb
from registry.disk import disk_usage as disk
from registry.hub.download_job import FOLDER
from registry.hub.hub_client import Hub as HubClient
from registry.stop_signal import Stopped
from tests.integration.registry.conftest import KEY, Running
from tests.support.models.gguf_files import write_gguf
from tests.support.registry.hub_double import Hub, Repo, hub_double
from tests.support.registry.registry_client import SECONDS

LINK, IN_PLACE = pb.ImportModelRequest.LINK, pb.ImportModelRequest.IN_PLACE


async def test_models_are_reported_with_their_files(registry: Running, home: Path, tmp_path: Path) -> None:
    linked, kept = write_gguf(tmp_path / "Linked.gguf"), write_gguf(tmp_path / "Kept.gguf", tensor_count=3)
    await registry.client.import_model(linked, mode=LINK)
    await registry.client.import_model(kept, mode=IN_PLACE)
    use = await registry.client.disk()
    tiny = (home / "models/Acme/Tiny-GGUF/Tiny.Q4_1.gguf").stat().st_size
    assert {each.key: (each.size_bytes, each.in_library, each.names) for each in use.models} == {
        KEY: (tiny, True, 1),
        "local/linked": (linked.stat().st_size, True, 2),
        "local/kept": (kept.stat().st_size, False, 1),
    }
    assert use.library_bytes == tiny + linked.stat().st_size
    assert (use.database_bytes > 0, use.other_bytes) == (True, 0)
    assert use.used_bytes == use.library_bytes + use.database_bytes
    (file_system,) = use.file_systems
    assert file_system.path == str(home)
    assert 0 < file_system.free_bytes <= file_system.total_bytes


async def test_one_file_of_two_models_counts_once(registry: Running, home: Path, tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "one.gguf")
    os.link(source, tmp_path / "other.gguf")
    before = (await registry.client.disk()).library_bytes
    await registry.client.import_model(source, mode=LINK)
    await registry.client.import_model(tmp_path / "other.gguf", mode=LINK)
    use = await registry.client.disk()
    assert [each.names for each in use.models if each.key != KEY] == [4, 4]
    assert use.library_bytes == before + source.stat().st_size


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    content = write_gguf(tmp_path / "hub.gguf", tensor_count=6000).read_bytes()
    with hub_double() as hub:
        hub.repos["Acme/Fresh"] = Repo({"Fresh-Q4_0.gguf": content})
        hub.cut_after = [len(content) // 2]
        yield hub


async def test_an_unfinished_download_is_reported_with_its_received_bytes(hub: Hub, start: Any, home: Path) -> None:
    registry: Running = await start(hub=HubClient(endpoint=hub.url))
    async with registry.client.watch() as view:
        download_id = (await registry.client.download("Acme/Fresh")).download.id
        await view.until(lambda view: view.downloads[download_id].HasField("error"))
        done = (await registry.client.control(download_id, pb.ControlDownloadRequest.PAUSE)).done_bytes
        stray = home / "models" / FOLDER / "stray"
        stray.mkdir()
        (stray / "x.gguf.part").write_bytes(b"abc")
        use = await registry.client.disk()
        (reported,) = use.downloads
        assert reported.id == download_id
        assert done <= reported.size_bytes <= done + 1000  # and a file that describes the download
        assert [(each.path, each.size_bytes) for each in use.leftovers] == [(str(stray), 3)]
        assert use.other_bytes == 0
        await registry.client.control(download_id, pb.ControlDownloadRequest.RESUME)
        await view.until_download(download_id, pb.DOWNLOAD_COMPLETED)
    assert list((await registry.client.disk()).downloads) == []


def save_prompt(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "x.kv").write_bytes(b"saved")


async def test_saved_prompts_are_reported_by_instance_even_with_undecodable_names(
    registry: Running, home: Path
) -> None:
    instance = await registry.client.create(KEY, "poet")
    for name in (b"acme--tiny", b"poet", b"caf\xe9"):
        save_prompt(home / "cache" / os.fsdecode(name))
    use = await registry.client.disk()
    assert [(each.directory, each.instance_id, each.size_bytes) for each in use.caches] == [
        ("acme--tiny", KEY, 5),
        ("caf\N{REPLACEMENT CHARACTER}", "", 5),
        ("poet", instance.id, 5),
    ]


async def test_a_slow_disk_blocks_no_other_request(registry: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    looking, stopped = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(config: Any, models: Any, stop: threading.Event) -> Any:
        loop.call_soon_threadsafe(looking.set)
        if stop.wait(SECONDS):
            loop.call_soon_threadsafe(stopped.set)
        raise Stopped()

    monkeypatch.setattr(disk, "scan_disk", slow)
    async with asyncio.timeout(SECONDS):
        asked = asyncio.create_task(registry.client.disk())
        await looking.wait()
        await registry.client.create(KEY)
        asked.cancel()  # no caller waits for it any more
        await asyncio.wait([asked])
        await stopped.wait()
