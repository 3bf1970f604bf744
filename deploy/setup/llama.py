"""llama-cpp-python, which comes as source only: compiled from the archive whose hash the lock names."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.setup.backend import Backend
from deploy.setup.lock import Pin
from deploy.setup.process import run

PACKAGE = "llama-cpp-python"

# The worker calls libllama and nothing above it. Without llama.cpp's own command-line library and its image encoders
# there are 83 files to compile rather than 193, less than half of the time. llama-cpp-python forces the first of the
# two on in CMake's cache, but a plain variable, set as the project begins, hides the cached one.
_LIBLLAMA_ONLY = "set(LLAMA_BUILD_COMMON OFF)\n"
_NO_IMAGES = "-DLLAVA_BUILD=OFF"
_OTHER_MACHINES = "-DGGML_RPC=ON"  # one more file: devices of other machines

_LOADS = "import llama_cpp; llama_cpp.llama_backend_init()"


def cmake_args(backend: Backend, env: Mapping[str, str]) -> str:
    """CMake lets the last word win, and that is the user's."""
    ours = shlex.join([*backend.cmake_args, _NO_IMAGES, _OTHER_MACHINES])
    return f"{ours} {env.get('CMAKE_ARGS', '')}".strip()


def build_wheel(
    pin: Pin, args: str, python: Path, scratch: Path, log: Path, follow: Callable[[list[str]], None]
) -> Path:
    included = scratch / "libllama-only.cmake"
    included.write_text(_LIBLLAMA_ONLY)
    source = scratch / "llama.txt"
    source.write_text(pin.text)
    # pip's own cache would hand back a wheel that was compiled for another backend.
    fresh = ["--no-cache-dir", "--no-deps", "--no-binary", pin.name, "--require-hashes"]
    command: list[str | Path] = [python, "-m", "pip", "wheel", "-v", *fresh, "-r", source, "-w", scratch]
    run(command, log, _build_variables(args, included, scratch), follow)
    return next(scratch.glob("*.whl"))


def _build_variables(args: str, included: Path, scratch: Path) -> dict[str, str]:
    # Built beside the checkout, because /tmp is often small, kept in memory or mounted without execution.
    first = shlex.join([f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={included}"])
    return {"CMAKE_ARGS": f"{first} {args}", "NINJA_STATUS": "[%f/%t] ", "TMPDIR": str(scratch)}


def require_loadable(python: Path, log: Path) -> None:
    run([python, "-c", _LOADS], log)
