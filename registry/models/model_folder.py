"""The folder of models: which files in it are models."""

import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from registry.models.split_files import is_later_part

_log = structlog.get_logger(__name__)


def find_files(root: Path) -> list[Path]:
    """Every model's (first) file under `root`, sorted. Blocks; for a thread.

    Nothing hidden, no links to folders, and no link that leads out of the root.
    """
    return sorted(
        path
        for path in _gguf_files(root)
        if not is_later_part(path) and _stays_inside(path, root) and _can_be_written_down(path)
    )


def _gguf_files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, name) for name in names if name.lower().endswith(".gguf") and name[0] != ".")


def _stays_inside(path: Path, root: Path) -> bool:
    # realpath, as Path.resolve raises on a link to itself; that one is found to be no file when it is read.
    if not path.is_symlink() or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        return True
    _log.warning("model_skipped", path=str(path), reason="it is a link out of its folder")
    return False


def _can_be_written_down(path: Path) -> bool:
    """A file system takes names that are no text; a database does not."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        _log.warning("model_skipped", path=repr(path), reason="its name is not UTF-8")
        return False
    return True


def is_there(root: Path) -> bool:
    """Whether the folder can be believed: one that is empty may be the place of a disk that is away."""
    try:
        return any(not entry.name.startswith(".") for entry in root.iterdir())
    except OSError:
        return False
