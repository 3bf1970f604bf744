"""Imports: the request, the key the model gets, and where its files go."""

import filecmp
import os
import stat
import threading
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from atelier.errors import InvalidRequest
from atelier.names import check_key
from registry.models.library_files import place
from registry.models.model_facts import ModelFacts
from registry.models.model_naming import FileOrigin, display_name, key_for, origin_in, origin_of
from registry.models.projector_files import ProjectorFile, projectors_in
from registry.models.split_files import parts_of


class Mode(Enum):
    """What an import does with the file."""

    COPY = "copy"
    LINK = "link"  # a hard link where the file system supports it, else a copy
    IN_PLACE = "in_place"


@dataclass(frozen=True, slots=True)
class ImportRequest:
    path: Path
    key: str | None = None
    mode: Mode = Mode.COPY


def check_import(path: str, key: str | None, mode: Mode) -> ImportRequest:
    """The request, checked. Raises InvalidRequest that names what to change."""
    return ImportRequest(_check_path(path), check_key(key.lower()) if key else None, mode)


def naming_of(request: ImportRequest, facts: ModelFacts, models_dir: Path) -> tuple[str, str]:
    """The key that the model gets if it is free, and its display name."""
    inside = request.path.is_relative_to(models_dir)
    origin = origin_in(models_dir, request.path) if inside else origin_of(request.path)
    if request.key:
        publisher, _, name = request.key.partition("/")
        return request.key, display_name(request.path, FileOrigin(publisher, name), facts)
    name = display_name(request.path, origin, facts)
    return key_for(origin.publisher, name), name


def place_files(
    request: ImportRequest, key: str, projector: ProjectorFile | None, models_dir: Path, stop: threading.Event
) -> list[Path]:
    """Put the files into the library; returns their paths there, the first part first. Blocks; for a thread.

    `projector`: found beside the model. It is imported too, unless the folder has it already.
    """
    if request.mode is Mode.IN_PLACE or request.path.is_relative_to(models_dir):
        return parts_of(request.path)
    publisher, _, name = key.partition("/")
    folder = models_dir / publisher / name.partition("@")[0]
    has_it = projector and any(filecmp.cmp(each.path, projector.path, shallow=False) for each in projectors_in(folder))
    beside = [projector.path] if projector and not has_it else []
    return place([*parts_of(request.path), *beside], folder, models_dir, link=request.mode is Mode.LINK, stop=stop)


def _check_path(given: str) -> Path:
    path = Path(given)
    if "\0" in given or not path.is_absolute():
        raise InvalidRequest("The path of a model file must be absolute.", param="path")
    path = Path(os.path.normpath(path))
    try:
        info = path.stat()
        readable = os.access(path, os.R_OK)
    except PermissionError:
        raise InvalidRequest(f"The server may not read {path}.", param="path") from None
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be imported: {error.strerror or error}.", param="path") from None
    if not stat.S_ISREG(info.st_mode):
        raise InvalidRequest(f"{path} is not a file: name the .gguf file itself.", param="path")
    if not readable:
        raise InvalidRequest(f"The server may not read {path}.", param="path")
    return path
