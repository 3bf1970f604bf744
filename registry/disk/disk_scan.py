"""One look at all of the server's files. Blocks; for a thread."""

import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from atelier.config import Config
from registry.disk.disk_files import Files, entries, files_at, files_below
from registry.hub.downloads import FOLDER
from registry.models.model_record import Model, files_of


@dataclass(frozen=True, slots=True)
class FileSystem:
    path: Path  # of a folder on it
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What lay where."""

    file_systems: Sequence[FileSystem]
    by_model: Mapping[str, Files]  # by key
    models_dir: Files  # all that lies there, downloads too
    by_download: Mapping[Path, Files]  # by the folder that a download is worked on in
    by_cache: Mapping[str, Files]  # by directory
    adapters: Files
    logs: Files
    database: Files


def look_at(config: Config, models: Sequence[Model], stop: threading.Event) -> Look:
    """Stopped when told to."""
    database = config.database_path
    return Look(
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
    """Those that the folders lie on, each by the first of them; a folder may not be there yet."""
    found: dict[int, FileSystem] = {}
    for folder in folders:
        with suppress(OSError):
            usage = shutil.disk_usage(folder)
            found.setdefault(folder.stat().st_dev, FileSystem(folder, usage.total, usage.free))
    return list(found.values())
