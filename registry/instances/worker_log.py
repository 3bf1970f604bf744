"""The files that workers' output goes to: one for each instance id, bounded, and read for last words."""

import os
from pathlib import Path

from atelier.log_file import set_aside_if_larger, tail
from registry.instances.instance_record import file_name

LARGEST = 10 * 2**20  # bytes, at launch; then the file becomes the previous one
TAIL_LINES = 5
LONGEST_TAIL = 600  # characters


def log_path(logs_dir: Path, instance_id: str) -> Path:
    return logs_dir / f"{file_name(instance_id)}.log"


def open_log(path: Path) -> int:
    """A descriptor that appends to the log, after making room."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    set_aside_if_larger(path, LARGEST)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def last_lines(path: Path, since: int = 0) -> str:
    """The last lines written after byte `since`; empty when there are none."""
    return "\n".join(tail(path, since)[-TAIL_LINES:])[-LONGEST_TAIL:]
