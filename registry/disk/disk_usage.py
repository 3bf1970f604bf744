"""What a look at the files comes to: pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atelier.config import Config
from registry.disk.disk_files import Files, length, together
from registry.disk.disk_scan import FileSystem, Look
from registry.hub.download_record import Download, State
from registry.instances.instance_record import file_name
from registry.models.model_record import Model


@dataclass(frozen=True, slots=True)
class ModelFiles:
    key: str
    size_bytes: int  # of all its parts, and what came with them
    in_library: bool  # otherwise they are another program's
    names: int  # hard links, of the file that has the most


@dataclass(frozen=True, slots=True)
class CacheFiles:
    directory: str
    instance_id: str | None  # None: nobody knows whose it was
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUse:
    """Bytes are lengths of files. In a sum a file counts once, however many names it has."""

    file_systems: Sequence[FileSystem]
    models: Sequence[ModelFiles]
    downloads: Mapping[str, int]  # unfinished ones, by id
    leftovers: Mapping[Path, int]  # of downloads that nobody knows
    caches: Sequence[CacheFiles]
    library_bytes: int  # models' files that lie in the library
    adapters_bytes: int
    logs_bytes: int
    database_bytes: int
    other_bytes: int  # files in the library that are of no model and no download
    used_bytes: int  # all of it; models elsewhere take no room of ours


def disk_use(
    look: Look, config: Config, models: Sequence[Model], downloads: Iterable[Download], instance_ids: Iterable[str]
) -> DiskUse:
    """`downloads`, `instance_ids`: all that are known after the look, so that nothing of theirs is a stranger's."""
    known = {download.id: download for download in downloads}
    of_models, coming = together(look.by_model.values()), together(look.by_download.values())
    library = {identity: info for identity, info in look.models_dir.items() if identity in of_models}
    others = look.models_dir.keys() - of_models.keys() - coming.keys()
    ours = [look.models_dir, coming, *look.by_cache.values(), look.adapters, look.logs, look.database]
    return DiskUse(
        file_systems=look.file_systems,
        models=[_model_files(model, look.by_model[model.key], config) for model in models],
        downloads=_of_downloads(known, {path.name: files for path, files in look.by_download.items()}),
        leftovers={path: length(files) for path, files in look.by_download.items() if path.name not in known},
        caches=_caches(look.by_cache, [*(model.key for model in models), *instance_ids]),
        library_bytes=length(library),
        adapters_bytes=length(look.adapters),
        logs_bytes=length(look.logs),
        database_bytes=length(look.database),
        other_bytes=sum(look.models_dir[identity].st_size for identity in others),
        used_bytes=length(together(ours)),
    )


def _model_files(model: Model, files: Files, config: Config) -> ModelFiles:
    in_library = model.path.is_relative_to(config.models_dir)
    names = max((info.st_nlink for info in files.values()), default=0)
    return ModelFiles(model.key, length(files), in_library, names)


def _of_downloads(known: Mapping[str, Download], files: Mapping[str, Files]) -> dict[str, int]:
    """The unfinished ones, and what a finished one has left."""
    return {
        id: length(files.get(id, {}))
        for id, download in known.items()
        if download.state is not State.COMPLETED or files.get(id)
    }


def _caches(by_directory: Mapping[str, Files], ids: Iterable[str]) -> list[CacheFiles]:
    owners = {file_name(id): id for id in ids}
    return [CacheFiles(name, _owner(name, owners), length(files)) for name, files in by_directory.items()]


def _owner(directory: str, owners: Mapping[str, str]) -> str | None:
    """One of the owners, or a numbered instance of one."""
    if owner := owners.get(directory):
        return owner
    base, _, number = directory.partition("~")
    return f"{owners[base]}:{number}" if base in owners and number.isdecimal() else None
