"""What a worker inherits, and its log file."""

import os
from pathlib import Path

from registry.devices.pinning import worker_environment
from registry.instances.local_worker import LARGEST_LOG, last_lines, log_path, open_log


def test_secrets_are_not_inherited() -> None:
    inherited = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "3",
        "ATELIER_API_KEY": "secret",
        "ATELIER_REGISTRY_TOKEN": "secret",
        "HF_TOKEN": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    environment = worker_environment(inherited, {"CUDA_VISIBLE_DEVICES": "0"})
    assert "secret" not in environment.values()
    assert environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert environment["PATH"] == "/bin"
    assert environment["ATELIER_LOG_FORMAT"] == "json"


def test_each_instance_has_a_log_file_in_the_logs_folder() -> None:
    assert log_path(Path("/logs"), "a/b@q4:2") == Path("/logs/a--b@q4~2.log")


def test_a_large_log_makes_room_at_the_next_launch(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "a.log"
    os.close(open_log(path))
    path.write_bytes(b"x" * (LARGEST_LOG + 1))
    os.close(open_log(path))
    assert path.stat().st_size == 0
    assert path.with_suffix(".log.1").stat().st_size == LARGEST_LOG + 1


def test_the_last_lines_of_a_log_are_those_of_this_launch(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("earlier\n")
    since = path.stat().st_size
    assert last_lines(path, since) == ""
    with path.open("a") as file:
        file.writelines(f"line {number}\n" for number in range(20))
    assert last_lines(path, since).splitlines() == [f"line {number}" for number in range(15, 20)]


def test_the_last_lines_are_found_after_the_log_was_truncated(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("of this launch\n")
    assert last_lines(path, since=1000) == "of this launch"


def test_a_missing_log_has_no_last_lines(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none.log") == ""
