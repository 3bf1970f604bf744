"""The folder of models: which files in it are models."""

import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from registry.models.parts import is_later_part

_log = structlog.get_logger(__name__)


def find_files(root: Path) -> list[Path]:
    """Every model's (first) file under `root`, sorted. Blocks; for a thread.

    Nothing hidden, no links to folders, and no link that leads out of the root.
    """
    return sorted(path for path in _gguf_files(root) if not is_later_part(path) and _stays_inside(path, root))


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
