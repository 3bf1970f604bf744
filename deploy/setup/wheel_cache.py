"""llama.cpp's wheels, kept between checkouts. Nothing relies on them: without them, set-up compiles again."""

import hashlib
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from deploy.setup.backend import Backend
from deploy.setup.build_machine import Machine
from deploy.setup.requirements_lock import Pin


def wheel_key(pin: Pin, cmake_args: str, backend: Backend, machine: Machine) -> str:
    """Everything that decides what the compiler makes: native code must not be reused on another CPU or GPU."""
    facts = {
        "source": pin.text,
        "backend": backend.name,
        "cmake_args": cmake_args,
        "python": sys.implementation.cache_tag,
        "platform": machine.platform,
        "cpu": machine.cpu,
        "gpus": [machine.nvidia_gpus, machine.amd_gpus],
        "compilers": [str(tool) for tool in (machine.cxx, machine.nvcc, machine.hipcc, machine.glslc)],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


class WheelCache:
    """One folder per key with one wheel in it, put there whole by a rename."""

    def __init__(self, env: Mapping[str, str]) -> None:
        base = env.get("XDG_CACHE_HOME") or Path(env.get("HOME", "~")).expanduser() / ".cache"
        self._folder = Path(base, "lm-atelier", "wheels")

    def find(self, key: str) -> Path | None:
        wheels = (self._folder / key).glob("*.whl")
        return next((wheel for wheel in wheels if zipfile.is_zipfile(wheel)), None)

    def keep(self, key: str, wheel: Path) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=".new-") as new:
                whole = Path(new, key)
                whole.mkdir()
                shutil.copy(wheel, whole)
                self.discard(key)
                whole.rename(self._folder / key)
        except OSError:
            return

    def discard(self, key: str) -> None:
        shutil.rmtree(self._folder / key, ignore_errors=True)
