"""Puts a model's files into the library: whole, or not at all."""

import errno
import itertools
import os
import threading
import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from atelier.errors import AtelierError, Conflict, DiskFull, InvalidRequest, Unavailable
from registry.models.model_record import Model, files_of
from registry.models.split_files import PART, parts_of

UNFINISHED = ".importing-"  # begins the names of files that are still being written
COPY_BYTES = 8 * 2**20


class Abandoned(Unavailable):
    """The registry stopped before the file was imported."""


def place(files: Sequence[Path], folder: Path, root: Path, *, link: bool, stop: threading.Event) -> list[Path]:
    """Copy, or hard-link, a model's files into `folder` under `root`; their new paths.

    Blocks; for a thread. The first, which stands for the model, appears last. On failure
    nothing is left behind. DiskFull when the disk is full; Abandoned when `stop` is set meanwhile.
    """
    placed: list[Path] = []
    try:
        _make_inside(folder, root)
        names = _free_names(files, folder)
        for file, name in reversed(list(zip(files, names, strict=True))):
            _place_one(file, folder / name, link, stop)
            placed.append(folder / name)
    except BaseException as error:
        for path in placed:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _refusal(error, folder) from error
        raise
    return placed[::-1]


def put(files: Sequence[Path], folder: Path, root: Path) -> Path:
    """Move whole files into `folder` under `root`, in place of those that have their names; the first one's new path.

    Blocks; for a thread. They lie in the same file system. The first, which stands for the model, comes last.
    """
    try:
        _make_inside(folder, root)
        for file in reversed(files):
            file.replace(folder / file.name)
        sync_folder(folder)
    except OSError as error:
        raise _refusal(error, folder) from error
    return folder / files[0].name


def take_away(model: Model, needed: Collection[str], root: Path) -> list[Path]:
    """Delete a model's files, with what came beside them, and the folders that are empty then; what was deleted.

    Nothing outside `root`. `needed`: names of files in its folder that stay. The first part, which stands for the
    model, goes last.
    """
    if not model.path.is_relative_to(root):
        return []
    parts = parts_of(model.path)
    deleted = []
    for path in reversed(files_of(model)):
        if path not in parts and path.name in needed:
            continue
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Conflict(f"{path} cannot be deleted: {error.strerror or error}.", param="key") from error
        deleted.append(path)
    for folder in model.path.parents:
        if folder == root or not folder.is_relative_to(root) or any(folder.iterdir()):
            break
        folder.rmdir()
    return deleted


def remove_unfinished(root: Path) -> None:
    """Delete what an import that was killed left behind."""
    for path in root.rglob(f"{UNFINISHED}*"):
        if path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _place_one(source: Path, target: Path, link: bool, stop: threading.Event) -> None:
    unfinished = target.with_name(UNFINISHED + uuid.uuid4().hex)
    try:
        if not (link and _hard_link(source, unfinished)):
            _copy(source, unfinished, stop)
        unfinished.rename(target)
        sync_folder(target.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _hard_link(source: Path, target: Path) -> bool:
    """Whether it could be done: not across file systems, nor on every one of them."""
    with suppress(OSError):
        os.link(source.resolve(), target)
        return True
    return False


def _copy(source: Path, target: Path, stop: threading.Event) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        while piece := reader.read(COPY_BYTES):
            if stop.is_set():
                raise Abandoned()
            writer.write(piece)
        writer.flush()
        os.fsync(writer.fileno())


def _make_inside(folder: Path, root: Path) -> None:
    if not folder.resolve().is_relative_to(root.resolve()):
        raise InvalidRequest("The models' folder leads, by a link, out of itself: remove the link.", param="path")
    folder.mkdir(parents=True, exist_ok=True)


def _free_names(files: Sequence[Path], folder: Path) -> list[str]:
    """The files' own names, or, where another model's file has one, numbered ones."""
    for number in itertools.count(1):
        names = [_numbered(file.name, number) for file in files]
        if not any((folder / name).exists() for name in names):
            return names
    raise AssertionError("counting ends never")


def _numbered(name: str, number: int) -> str:
    if number == 1:
        return name
    if match := PART.fullmatch(name):
        return f"{match['stem']}-{number}{name[match.end('stem') :]}"
    path = Path(name)
    return f"{path.stem}-{number}{path.suffix}"


def _refusal(error: OSError, folder: Path) -> AtelierError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"The disk that holds {folder} is full; nothing was imported.")
    return InvalidRequest(f"The file could not be imported: {error.strerror or error}.", param="path")
