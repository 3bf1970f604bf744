"""Which files are counted, and how often."""

import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from atelier.config import Config
from registry.disk import disk_scan as look
from registry.disk.disk_scan import file_systems, files_at, files_below, scan_disk, total_bytes
from registry.disk.disk_usage import CacheFiles, DiskUse, ModelFiles, disk_use
from registry.hub.download_record import Download, DownloadState
from registry.models.model_facts import ModelFacts
from registry.models.model_record import Model, Provenance, Stamp
from registry.stop_signal import Stopped

FACTS = ModelFacts(
    title="",
    architecture="llama",
    quantization="",
    bits_per_weight=0,
    size_bytes=0,
    parameters=0,
    layers=0,
    context_length=0,
    embedding_length=0,
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "home")


def write(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def model(key: str, path: Path, *beside: str) -> Model:
    provenance = Provenance("hub", "a/b", "c", "", dict.fromkeys(beside, "sha256:0")) if beside else None
    return Model(
        key=key,
        path=path,
        source=path,
        display_name="",
        facts=FACTS,
        stamp=Stamp(0, 0),
        imported_at=0,
        provenance=provenance,
    )


def download(id: str, state: DownloadState = DownloadState.PAUSED) -> Download:
    return Download(id=id, reference="a/b", repo="a/b", commit="c", licence="", files=(), started_at=0, state=state)


def use(config: Config, *models: Model, downloads: Sequence[Download] = (), ids: Sequence[str] = ()) -> DiskUse:
    return disk_use(scan_disk(config, models, threading.Event()), config, models, downloads, ids)


def sums(use: DiskUse) -> tuple[int, int, int]:
    return use.library_bytes, use.other_bytes, use.used_bytes


def test_a_models_size_includes_its_parts_and_companion_files(config: Config) -> None:
    first = write(config.models_dir / "a/b/Big-00001-of-00002.gguf", 5)
    write(first.with_name("Big-00002-of-00002.gguf"), 7)
    write(first.with_name("mmproj-F16.gguf"), 11)
    write(first.with_name("README.md"), 100)
    found = use(config, model("a/big", first, first.name, "mmproj-F16.gguf"))
    assert found.models == [ModelFiles("a/big", 23, True, 1)]
    assert sums(found) == (23, 100, 123)


def test_a_file_with_two_names_counts_once_in_the_sums(config: Config) -> None:
    one = write(config.models_dir / "a/b/One.gguf", 50)
    other = config.models_dir / "a/c/Other.gguf"
    other.parent.mkdir()
    os.link(one, other)
    alone = write(config.models_dir / "a/d/Alone.gguf", 3)
    found = use(config, model("a/one", one), model("a/other", other), model("a/alone", alone))
    assert found.models == [
        ModelFiles("a/one", 50, True, 2),
        ModelFiles("a/other", 50, True, 2),
        ModelFiles("a/alone", 3, True, 1),
    ]
    assert sums(found) == (53, 0, 53)


def test_a_projector_shared_by_two_models_counts_once(config: Config) -> None:
    one, other = (write(config.models_dir / f"a/b/{name}.gguf", 10) for name in ("one", "other"))
    write(one.with_name("mmproj.gguf"), 4)
    found = use(config, model("a/one", one, "mmproj.gguf"), model("a/other", other, "mmproj.gguf"))
    assert [each.size_bytes for each in found.models] == [14, 14]
    assert found.library_bytes == 24


def test_a_model_elsewhere_is_listed_and_not_counted(config: Config, tmp_path: Path) -> None:
    outside = write(tmp_path / "elsewhere/x.gguf", 50)
    found = use(config, model("local/x", outside))
    assert found.models == [ModelFiles("local/x", 50, False, 1)]
    assert sums(found) == (0, 0, 0)


def test_a_file_linked_into_the_library_counts_there(config: Config, tmp_path: Path) -> None:
    outside = write(tmp_path / "elsewhere/x.gguf", 50)
    inside = config.models_dir / "local/x.gguf"
    inside.parent.mkdir(parents=True)
    os.link(outside, inside)
    found = use(config, model("local/x", inside), model("local/same", outside))
    assert [(each.in_library, each.names) for each in found.models] == [(True, 2), (False, 2)]
    assert found.library_bytes == 50


def test_links_out_of_the_folder_are_not_followed(config: Config, tmp_path: Path) -> None:
    outside = write(tmp_path / "elsewhere/Big-00002-of-00002.gguf", 1000)
    first = write(config.models_dir / "a/Big-00001-of-00002.gguf", 5)
    first.with_name(outside.name).symlink_to(outside)
    (config.models_dir / "folder").symlink_to(outside.parent)
    (config.models_dir / "loop").symlink_to(config.models_dir)
    found = use(config, model("a/big", first))
    assert found.models == [ModelFiles("a/big", 1005, True, 1)]
    assert sums(found) == (5, 0, 5)


def test_a_linked_models_folder_is_followed(config: Config, tmp_path: Path) -> None:
    config.home.mkdir()
    config.models_dir.symlink_to(tmp_path / "disk")
    write(tmp_path / "disk/a/x.gguf", 50)
    found = use(config, model("a/x", config.models_dir / "a/x.gguf"))
    assert found.models == [ModelFiles("a/x", 50, True, 1)]
    assert sums(found) == (50, 0, 50)


def test_a_model_whose_file_is_missing_has_no_size(config: Config) -> None:
    found = use(config, model("a/gone", config.models_dir / "a/gone.gguf"))
    assert found.models == [ModelFiles("a/gone", 0, True, 0)]


class Deleting(threading.Event):
    """An event that deletes the given paths when it is checked: files vanish in the middle of a scan."""

    def __init__(self, *paths: Path) -> None:
        super().__init__()
        self._paths = paths

    def is_set(self) -> bool:
        for path in self._paths:
            path.unlink(missing_ok=True) if path.is_file() else shutil.rmtree(path, ignore_errors=True)
        return False


def test_a_file_that_vanishes_during_the_scan_causes_no_error(tmp_path: Path) -> None:
    write(tmp_path / "stays", 3)
    vanishing = write(tmp_path / "vanishes", 5), write(tmp_path / "folder/inside", 7).parent
    assert total_bytes(files_below(tmp_path, Deleting(*vanishing))) == 3


def test_a_scan_ends_when_it_is_stopped(config: Config) -> None:
    write(config.models_dir / "x", 1)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        scan_disk(config, [], stop)


def test_only_regular_files_are_counted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert files_at([tmp_path / "pipe", tmp_path, tmp_path / "nothing"]) == {}


def test_downloads_are_distinguished_from_leftovers(config: Config) -> None:
    folder = config.models_dir / look.FOLDER
    write(folder / "d1/x.gguf.part", 10)
    write(folder / "d1/pip/inside/y", 2)
    write(folder / "late/x.gguf", 4)
    write(folder / "stray/x.gguf.part", 20)
    write(folder / "file", 30)
    (folder / "link").symlink_to(config.home)
    downloads = [
        download("d1"),
        download("d2"),
        download("late", DownloadState.COMPLETED),
        download("done", DownloadState.COMPLETED),
    ]
    found = use(config, downloads=downloads)
    assert found.downloads == {"d1": 12, "d2": 0, "late": 4}
    assert found.leftovers == {folder / "stray": 20, folder / "file": 30}
    assert sums(found) == (0, 0, 66)


def test_saved_prompts_are_reported_by_instance(config: Config) -> None:
    for number, name in enumerate(("a--b--c", "a--b--c~2", "poet", "gone--model", "a--b--c~x")):
        write(config.cache_dir / name / "x.kv", 2**number)
    found = use(config, model("a/b--c", config.models_dir / "x.gguf"), ids=["poet"])
    assert found.caches == [
        CacheFiles("a--b--c", "a/b--c", 1),
        CacheFiles("a--b--c~2", "a/b--c:2", 2),
        CacheFiles("a--b--c~x", None, 16),
        CacheFiles("gone--model", None, 8),
        CacheFiles("poet", "poet", 4),
    ]
    assert found.used_bytes == 31


def test_other_files_of_the_home_are_reported_by_kind(config: Config) -> None:
    write(config.logs_dir / "gateway.log.1", 1)
    write(config.adapters_dir / "deep/down/x.gguf", 2)
    write(config.database_path, 4)
    write(config.home / "registry.db-wal", 8)
    write(config.home / "unrelated", 100)
    found = use(config)
    assert (found.logs_bytes, found.adapters_bytes, found.database_bytes, found.used_bytes) == (1, 2, 12, 15)


def test_each_file_system_is_reported_once_by_its_first_folder(tmp_path: Path) -> None:
    folders = [tmp_path / "nothing", tmp_path, tmp_path.parent, Path("/dev")]
    assert [each.path for each in file_systems(folders)] == [tmp_path, Path("/dev")]
    (found,) = file_systems([tmp_path])
    assert found.total_bytes == shutil.disk_usage(tmp_path).total
    assert 0 < found.free_bytes <= found.total_bytes
