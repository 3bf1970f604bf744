"""llama-cpp-python's wheel: compiled from the source archive that the lock names, and cached between checkouts.

The cache is optional: without it, set-up compiles again.
"""

import hashlib
import json
import shlex
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.setup.backend import Backend
from deploy.setup.build_command import run
from deploy.setup.build_machine import Machine
from deploy.setup.virtualenv import LockedPackage

PACKAGE = "llama-cpp-python"

# The worker needs only libllama and libmtmd, which reads images. llama-cpp-python forces llama.cpp's command-line
# library on in CMake's cache; a plain variable that is set when the project begins overrides it.
_NO_COMMON = "set(LLAMA_BUILD_COMMON OFF)\n"
_IMAGES = "-DLLAVA_BUILD=ON"  # libmtmd
_OTHER_MACHINES = "-DGGML_RPC=ON"  # devices of other machines; one more source file

# GCC 12 optimises away most of llama.cpp's configuration of Intel AMX tiles, as its header declares that only the first
# bytes are read (amxtileintrin.h): each prompt then ends in a general protection fault. Without the macro there is no
# such code, and prompts are computed by the same kernels as single tokens.
_NO_TILES = "-U__AMX_INT8__"

_LOADS = "import llama_cpp; llama_cpp.llama_backend_init()"


def cmake_args(backend: Backend, env: Mapping[str, str]) -> str:
    """The arguments of the backend, then the user's: CMake uses the last value of a variable."""
    flags = {"C": env.get("CFLAGS", ""), "CXX": env.get("CXXFLAGS", "")}
    compilers = [f"-DCMAKE_{language}_FLAGS={f'{given} {_NO_TILES}'.strip()}" for language, given in flags.items()]
    ours = shlex.join([*backend.cmake_args, _IMAGES, _OTHER_MACHINES, *compilers])
    return f"{ours} {env.get('CMAKE_ARGS', '')}".strip()


def build_wheel(
    pin: LockedPackage, args: str, python: Path, scratch: Path, log: Path, follow: Callable[[list[str]], None]
) -> Path:
    included = scratch / "no-common.cmake"
    included.write_text(_NO_COMMON)
    source = scratch / "llama.txt"
    source.write_text(pin.text)
    # pip's own cache could contain a wheel that was compiled for another backend.
    fresh = ["--no-cache-dir", "--no-deps", "--no-binary", pin.name, "--require-hashes"]
    command: list[str | Path] = [python, "-m", "pip", "wheel", "-v", *fresh, "-r", source, "-w", scratch]
    run(command, log, _build_variables(args, included, scratch), follow)
    return next(scratch.glob("*.whl"))


def _build_variables(args: str, included: Path, scratch: Path) -> dict[str, str]:
    # Built in the checkout, because /tmp is often small, in memory, or mounted with noexec.
    first = shlex.join([f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={included}"])
    return {"CMAKE_ARGS": f"{first} {args}", "NINJA_STATUS": "[%f/%t] ", "TMPDIR": str(scratch)}


def require_loadable(python: Path, log: Path) -> None:
    run([python, "-c", _LOADS], log)


def wheel_key(pin: LockedPackage, cmake_args: str, backend: Backend, machine: Machine) -> str:
    """A digest of everything that affects the compiled code: native code must not run on another CPU or GPU."""
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
    """One folder per key, with one wheel. Folders are written atomically, by a rename."""

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
