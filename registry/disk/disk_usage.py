"""How much space the server's files take, by what they belong to."""

import asyncio
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from atelier.config import Config
from registry.disk.disk_scan import DiskScan, Files, FileSystem, scan_disk, total_bytes, union
from registry.hub.download_record import Download, DownloadState
from registry.hub.downloads import Downloads
from registry.instances.instance_record import file_name
from registry.instances.instance_set import InstanceSet
from registry.models.model_catalogue import ModelCatalogue
from registry.models.model_record import Model


@dataclass(frozen=True, slots=True)
class ModelFiles:
    key: str
    size_bytes: int  # of all its parts, and files downloaded with them
    in_library: bool  # otherwise they belong to another program
    names: int  # hard links, of the file with the most


@dataclass(frozen=True, slots=True)
class CacheFiles:
    directory: str
    instance_id: str | None  # None: unknown
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUse:
    """Bytes are file lengths. In a sum a file counts once, however many names it has."""

    file_systems: Sequence[FileSystem]
    models: Sequence[ModelFiles]
    downloads: Mapping[str, int]  # unfinished ones, by id
    leftovers: Mapping[Path, int]  # of unknown downloads
    caches: Sequence[CacheFiles]
    library_bytes: int  # models' files in the library
    adapters_bytes: int
    logs_bytes: int
    database_bytes: int
    other_bytes: int  # files in the library that belong to no model and no download
    used_bytes: int  # all of it, without models outside the library


class Disk:
    """Scans on a thread of its own, one scan at a time: launches need the default threads."""

    def __init__(self, config: Config, catalogue: ModelCatalogue, downloads: Downloads, instances: InstanceSet) -> None:
        self._config = config
        self._catalogue = catalogue
        self._downloads = downloads
        self._instances = instances
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk")

    async def use(self) -> DiskUse:
        models, stop = self._catalogue.all(), threading.Event()
        try:
            loop = asyncio.get_running_loop()
            scan = await loop.run_in_executor(self._thread, scan_disk, self._config, models, stop)
        finally:
            stop.set()  # the caller may be gone: the thread stops too
        return disk_use(scan, self._config, models, self._downloads.all(), self._instances.ids())


def disk_use(
    scan: DiskScan, config: Config, models: Sequence[Model], downloads: Iterable[Download], instance_ids: Iterable[str]
) -> DiskUse:
    """Pure. `downloads`, `instance_ids`: all that are known after the scan, so that none of their files is unknown."""
    known = {download.id: download for download in downloads}
    of_models, incomplete = union(scan.by_model.values()), union(scan.by_download.values())
    library = {identity: info for identity, info in scan.models_dir.items() if identity in of_models}
    others = scan.models_dir.keys() - of_models.keys() - incomplete.keys()
    ours = [scan.models_dir, incomplete, *scan.by_cache.values(), scan.adapters, scan.logs, scan.database]
    return DiskUse(
        file_systems=scan.file_systems,
        models=[_model_files(model, scan.by_model[model.key], config) for model in models],
        downloads=_of_downloads(known, {path.name: files for path, files in scan.by_download.items()}),
        leftovers={path: total_bytes(files) for path, files in scan.by_download.items() if path.name not in known},
        caches=_caches(scan.by_cache, [*(model.key for model in models), *instance_ids]),
        library_bytes=total_bytes(library),
        adapters_bytes=total_bytes(scan.adapters),
        logs_bytes=total_bytes(scan.logs),
        database_bytes=total_bytes(scan.database),
        other_bytes=sum(scan.models_dir[identity].st_size for identity in others),
        used_bytes=total_bytes(union(ours)),
    )


def _model_files(model: Model, files: Files, config: Config) -> ModelFiles:
    in_library = model.path.is_relative_to(config.models_dir)
    names = max((info.st_nlink for info in files.values()), default=0)
    return ModelFiles(model.key, total_bytes(files), in_library, names)


def _of_downloads(known: Mapping[str, Download], files: Mapping[str, Files]) -> dict[str, int]:
    """The unfinished ones, and completed ones with files left."""
    return {
        id: total_bytes(files.get(id, {}))
        for id, download in known.items()
        if download.state is not DownloadState.COMPLETED or files.get(id)
    }


def _caches(by_directory: Mapping[str, Files], ids: Iterable[str]) -> list[CacheFiles]:
    owners = {file_name(id): id for id in ids}
    return [CacheFiles(name, _owner(name, owners), total_bytes(files)) for name, files in by_directory.items()]


def _owner(directory: str, owners: Mapping[str, str]) -> str | None:
    """One of the owners, or a numbered instance of one."""
    if owner := owners.get(directory):
        return owner
    base, _, number = directory.partition("~")
    return f"{owners[base]}:{number}" if base in owners and number.isdecimal() else None
