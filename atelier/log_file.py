"""Log files that other processes write: limited in size, and read from their end."""

import os
from pathlib import Path
from typing import BinaryIO

TAIL_BYTES = 4096


def set_aside_if_larger(path: Path, size: int) -> None:
    """Rename a file that exceeds `size` bytes to *.log.1, so that logs do not fill the disk over many starts."""
    if path.exists() and path.stat().st_size > size:
        path.replace(path.with_suffix(".log.1"))


def tail(path: Path, since: int = 0, most: int = TAIL_BYTES) -> list[str]:
    """The non-blank lines in the last `most` bytes of the file, and after byte `since`; empty if it is unreadable."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            begin = since if since <= size else 0  # the file shrank: `logrotate` truncated it
            file.seek(max(begin, size - most))
            lines = file.read(most).decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()]


def read_new(file: BinaryIO) -> bytes:
    """What was written since the last read; everything, if the file was truncated since."""
    if os.fstat(file.fileno()).st_size < file.tell():
        file.seek(0)
    return file.read()
