"""`.venv` and its content: requirements.lock, and the stamp that marks a complete environment."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.setup import SetupError
from deploy.setup.build_command import run


@dataclass(frozen=True)
class LockedPackage:
    """One package of the lock; `text` is its lines, which are a valid requirements file for pip."""

    name: str
    version: str
    text: str


@dataclass(frozen=True)
class Lock:
    """The lock, split into the package that is compiled here and all others."""

    compiled: LockedPackage
    others: str


def read_lock(text: str, compiled: str) -> Lock:
    blocks = re.split(r"^(?=[^\s#])", text, flags=re.MULTILINE)
    found = [block for block in blocks if block.startswith(f"{compiled}==")]
    if len(found) != 1:
        raise SetupError(f"requirements.lock has {len(found)} entries for {compiled} instead of one: run `make lock`")
    version = found[0].split()[0].removeprefix(f"{compiled}==")
    return Lock(LockedPackage(compiled, version, found[0]), "".join(block for block in blocks if block != found[0]))


@dataclass(frozen=True)
class EnvironmentStamp:
    """What a complete `.venv` was made from. If root or Python differ it is recreated; if only the content, updated."""

    root: str
    python: str
    contents: str


class Environment:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".venv"
        self.python = self.folder / "bin" / "python"
        self.log = self.folder / "setup.log"
        self._stamp = self.folder / "setup.json"
        self._unfinished = self.folder / "setup.unfinished"

    def holds(self, stamp: EnvironmentStamp) -> bool:
        return self.python.exists() and self._read_stamp() == stamp and not self._unfinished.exists()

    @contextmanager
    def being_filled(self, stamp: EnvironmentStamp) -> Iterator[None]:
        """Stamps the environment at the end. An interruption leaves its mark, and the next set-up recreates it."""
        if self._is_beyond_repair(stamp):
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(exist_ok=True)
        self._unfinished.touch()
        yield
        self._stamp.write_text(json.dumps(asdict(stamp)))
        self._unfinished.unlink()

    def ensure_python(self) -> None:
        if not self._runs():
            # This may be the environment's own Python: the base Python is not removed with it.
            base = getattr(sys, "_base_executable", sys.executable)
            run([base, "-m", "venv", self.folder], self.log)

    def install(self, *arguments: str | Path) -> None:
        run([self.python, "-m", "pip", "install", "--no-input", "--no-deps", *arguments], self.log)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="tmp-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def _is_beyond_repair(self, stamp: EnvironmentStamp) -> bool:
        if not self.folder.exists():
            return False
        held = self._read_stamp()
        moved = held is not None and (held.root, held.python) != (stamp.root, stamp.python)
        return moved or self._unfinished.exists() or not self._runs()

    def _runs(self) -> bool:
        program = "import pip, sys; print(sys.version)"
        try:
            done = subprocess.run([self.python, "-c", program], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return False
        return done.stdout.strip() == sys.version.strip()

    def _read_stamp(self) -> EnvironmentStamp | None:
        try:
            return EnvironmentStamp(**json.loads(self._stamp.read_text()))
        except (OSError, ValueError, TypeError):
            return None
