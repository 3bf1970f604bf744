"""Whether a download fits on the disk."""

import shutil
from pathlib import Path

from atelier.errors import DiskFull

RESERVED_BYTES = 64 * 2**20  # of the disk, never filled by downloads


def check_free_space(folder: Path, needed: int, pending: int) -> None:
    """Raises DiskFull when `needed` bytes do not fit beside the `pending` ones of other downloads."""
    free = shutil.disk_usage(folder).free
    if needed + pending + RESERVED_BYTES > free:
        raise DiskFull(
            f"The download needs {_gigabytes(needed)}, and the disk that holds {folder} has "
            f"{_gigabytes(max(0, free - pending))} free. Remove a model (atelier rm) or choose a smaller file."
        )


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
