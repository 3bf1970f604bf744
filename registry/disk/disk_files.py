"""Files as the disk has them: one file is one, however many names it has. Blocks; for threads."""

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from registry.hub.stop_signal import check

Files = dict[tuple[int, int], os.stat_result]
"""By device and inode, which all names of a file have in common."""


def files_at(paths: Iterable[Path]) -> Files:
    """Those of these files that are there; links lead to the file that is meant."""
    return _found(paths, Path.stat)


def files_below(root: Path, stop: threading.Event) -> Files:
    """All files below the folder, or the file that `root` is itself; Stopped when told to.

    Links below it are not followed. What vanishes meanwhile, or may not be looked at, is left out.
    """
    return _found(_paths_below(root, stop), Path.lstat)


def entries(folder: Path) -> list[Path]:
    """What lies in the folder, but for links; nothing, if it is not there."""
    try:
        return sorted(path for path in folder.iterdir() if not path.is_symlink())
    except OSError:
        return []


def together(parts: Iterable[Files]) -> Files:
    """Each file once."""
    return {identity: info for files in parts for identity, info in files.items()}


def length(files: Files) -> int:
    """Their bytes."""
    return sum(info.st_size for info in files.values())


def _found(paths: Iterable[Path], look: Callable[[Path], os.stat_result]) -> Files:
    found: Files = {}
    for path in paths:
        with suppress(OSError):
            info = look(path)
            if stat.S_ISREG(info.st_mode):
                found[info.st_dev, info.st_ino] = info
    return found


def _paths_below(root: Path, stop: threading.Event) -> Iterator[Path]:
    yield root
    for folder, _, names in os.walk(root):
        check(stop)
        yield from (Path(folder, name) for name in names)
