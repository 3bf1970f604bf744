"""The models' files in the library folder: found, placed whole or not at all, deleted."""

import errno
import itertools
import os
import threading
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from atelier.errors import AtelierError, Conflict, DiskFull, InvalidRequest, Unavailable
from registry.models.model_record import Model, files_of
from registry.models.split_files import PART, is_later_part, parts_of

UNFINISHED = ".importing-"  # prefix of the names of files that are still being written
COPY_BYTES = 8 * 2**20

_log = structlog.get_logger(__name__)


class Abandoned(Unavailable):
    """The registry stopped before the file was imported."""


def find_models(root: Path) -> list[Path]:
    """The first file of every model under `root`, sorted. Blocks; for a thread.

    Skips hidden files, links to folders, and links that lead out of the root.
    """
    return sorted(
        path
        for path in _gguf_files(root)
        if not is_later_part(path) and _stays_inside(path, root) and _is_storable(path)
    )


def is_mounted(root: Path) -> bool:
    """False for an empty folder: it may be the mount point of an absent disk, whose models were not deleted."""
    try:
        return any(not entry.name.startswith(".") for entry in root.iterdir())
    except OSError:
        return False


def place(files: Sequence[Path], folder: Path, root: Path, *, link: bool, stop: threading.Event) -> list[Path]:
    """Copy or hard-link a model's files into `folder` under `root`; returns their new paths.

    Blocks; for a thread. The first file, which makes the model visible, is placed last. A failure leaves nothing
    behind. Raises DiskFull; Abandoned when `stop` is set meanwhile.
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


def move_in(files: Sequence[Path], folder: Path, root: Path) -> Path:
    """Move whole files into `folder` under `root`, replacing those of the same names; returns the first one's new path.

    Blocks; for a thread. All are in one file system. The first, which makes the model visible, is moved last.
    """
    try:
        _make_inside(folder, root)
        for file in reversed(files):
            file.replace(folder / file.name)
        sync_folder(folder)
    except OSError as error:
        raise _refusal(error, folder) from error
    return folder / files[0].name


def delete_model_files(model: Model, needed: Collection[str], root: Path) -> list[Path]:
    """Delete a model's files, those downloaded with them, and folders left empty; returns the deleted paths.

    Deletes nothing outside `root`. `needed`: names of files in its folder that stay. The first part, which makes the
    model visible, is deleted last. Raises Conflict.
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
    """Delete the unfinished files of imports that were killed."""
    for path in root.rglob(f"{UNFINISHED}*"):
        if path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in the folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _gguf_files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, name) for name in names if name.lower().endswith(".gguf") and name[0] != ".")


def _stays_inside(path: Path, root: Path) -> bool:
    # realpath, because Path.resolve raises on a link to itself; reading such a link fails later.
    if not path.is_symlink() or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        return True
    _log.warning("model_skipped", path=str(path), reason="it is a link out of its folder")
    return False


def _is_storable(path: Path) -> bool:
    """A file system accepts names that are not text; a database does not."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        _log.warning("model_skipped", path=repr(path), reason="its name is not UTF-8")
        return False
    return True


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
    """False across file systems, and on those without hard links."""
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
        raise InvalidRequest("A link in the models' folder leads out of it: remove the link.", param="path")
    folder.mkdir(parents=True, exist_ok=True)


def _free_names(files: Sequence[Path], folder: Path) -> list[str]:
    """The files' own names, or numbered ones where another model's file has such a name."""
    for number in itertools.count(1):
        names = [_numbered(file.name, number) for file in files]
        if not any((folder / name).exists() for name in names):
            return names
    raise AssertionError("unreachable")


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
