"""Finds all files that the server stores. A file is counted once, however many names it has. Blocks; for threads."""

import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from atelier.config import Config
from registry.hub.download_job import FOLDER
from registry.models.model_record import Model, files_of
from registry.stop_signal import check

Files = dict[tuple[int, int], os.stat_result]
"""By device and inode, which all names of a file share."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    path: Path  # of a folder on it
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskScan:
    """The files found, by what they belong to."""

    file_systems: Sequence[FileSystem]
    by_model: Mapping[str, Files]  # by key
    models_dir: Files  # everything in it, downloads included
    by_download: Mapping[Path, Files]  # by the download's work folder
    by_cache: Mapping[str, Files]  # by directory
    adapters: Files
    logs: Files
    database: Files


def scan_disk(config: Config, models: Sequence[Model], stop: threading.Event) -> DiskScan:
    """Raises Stopped when `stop` is set."""
    database = config.database_path
    return DiskScan(
        file_systems=file_systems(
            [config.home, config.models_dir, config.adapters_dir, config.cache_dir, config.logs_dir]
        ),
        by_model={model.key: files_at(files_of(model)) for model in models},
        models_dir=files_below(config.models_dir, stop),
        by_download={path: files_below(path, stop) for path in entries(config.models_dir / FOLDER)},
        by_cache={path.name: files_below(path, stop) for path in entries(config.cache_dir)},
        adapters=files_below(config.adapters_dir, stop),
        logs=files_below(config.logs_dir, stop),
        database=files_at(path for path in entries(database.parent) if path.name.startswith(database.name)),
    )


def file_systems(folders: Iterable[Path]) -> list[FileSystem]:
    """The file systems of the folders, each with its first folder. Folders that do not exist yet are skipped."""
    found: dict[int, FileSystem] = {}
    for folder in folders:
        with suppress(OSError):
            usage = shutil.disk_usage(folder)
            found.setdefault(folder.stat().st_dev, FileSystem(folder, usage.total, usage.free))
    return list(found.values())


def files_at(paths: Iterable[Path]) -> Files:
    """Those of these files that exist; links are followed."""
    return _found(paths, Path.stat)


def files_below(root: Path, stop: threading.Event) -> Files:
    """All files below the folder, or `root` itself if it is a file. Raises Stopped.

    Links below it are not followed. Skips files that disappear meanwhile or may not be read.
    """
    return _found(_paths_below(root, stop), Path.lstat)


def entries(folder: Path) -> list[Path]:
    """The folder's entries without links; none if it does not exist."""
    try:
        return sorted(path for path in folder.iterdir() if not path.is_symlink())
    except OSError:
        return []


def union(parts: Iterable[Files]) -> Files:
    """Each file once."""
    return {identity: info for files in parts for identity, info in files.items()}


def total_bytes(files: Files) -> int:
    return sum(info.st_size for info in files.values())


def _found(paths: Iterable[Path], read_stat: Callable[[Path], os.stat_result]) -> Files:
    found: Files = {}
    for path in paths:
        with suppress(OSError):
            info = read_stat(path)
            if stat.S_ISREG(info.st_mode):
                found[info.st_dev, info.st_ino] = info
    return found


def _paths_below(root: Path, stop: threading.Event) -> Iterator[Path]:
    yield root
    for folder, _, names in os.walk(root):
        check(stop)
        yield from (Path(folder, name) for name in names)
