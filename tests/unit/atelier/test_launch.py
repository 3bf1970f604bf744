"""A launch's file: taken once, by a process that can be found, or withdrawn."""

import os
from pathlib import Path

import pytest

from atelier.launch import LaunchSpec, claim_path, read_claim, start_time, take_spec, write_spec
from atelier.settings import Load


@pytest.fixture
def path(tmp_path: Path) -> Path:
    spec = LaunchSpec(
        instance_id="i",
        engine="scripted",
        model_path="",
        load=Load(),
        address="unix:/x",
        token="t",
        grace_seconds=1,
    )
    path = tmp_path / "worker-1.json"
    write_spec(spec, path)
    return path


def test_the_process_that_takes_a_spec_can_be_found(path: Path) -> None:
    assert read_claim(path) is None
    assert take_spec(path).instance_id == "i"
    assert not path.exists()
    assert read_claim(path) == (os.getpid(), start_time(os.getpid()))


def test_a_withdrawn_spec_is_not_taken(path: Path) -> None:
    path.unlink()
    with pytest.raises(FileNotFoundError):
        take_spec(path)
    assert not claim_path(path).exists()


def test_a_spec_that_is_withdrawn_while_it_is_read_is_not_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def read_and_lose(self: Path) -> str:
        text = read(self)
        self.unlink()
        return text

    monkeypatch.setattr(Path, "read_text", read_and_lose)
    with pytest.raises(FileNotFoundError):
        take_spec(path)
    assert not claim_path(path).exists()
