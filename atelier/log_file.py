"""Log files that others write: kept from growing without end, and read from their end."""

import os
from pathlib import Path
from typing import BinaryIO

TAIL_BYTES = 4096


def set_aside_if_larger(path: Path, size: int) -> None:
    """Keep one older file, so that logs do not fill the disk over many starts."""
    if path.exists() and path.stat().st_size > size:
        path.replace(path.with_suffix(".log.1"))


def tail(path: Path, since: int = 0, most: int = TAIL_BYTES) -> list[str]:
    """The last lines that are not blank, of the `most` bytes at the end, and of those written after byte `since`.

    No line where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            begin = since if since <= size else 0  # shorter than it was: `logrotate` emptied it since
            file.seek(max(begin, size - most))
            lines = file.read(most).decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()]


def read_new(file: BinaryIO) -> bytes:
    """What was written since the last read; from the beginning, if the file was emptied since."""
    if os.fstat(file.fileno()).st_size < file.tell():
        file.seek(0)
    return file.read()
