"""llama-cpp-python, which comes as source only: compiled from the archive whose hash the lock names."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.setup.backend import Backend
from deploy.setup.build_command import run
from deploy.setup.requirements_lock import Pin

PACKAGE = "llama-cpp-python"

# The worker calls libllama and libmtmd, which reads images for it, and nothing above them. llama-cpp-python forces
# llama.cpp's own command-line library on in CMake's cache, but a plain variable, set as the project begins, hides it.
_NO_COMMON = "set(LLAMA_BUILD_COMMON OFF)\n"
_IMAGES = "-DLLAVA_BUILD=ON"  # libmtmd
_OTHER_MACHINES = "-DGGML_RPC=ON"  # one more file: devices of other machines

# Of Intel's tiles llama.cpp sets up what GCC 12 then leaves out of the program, as its header says that only the first
# bytes of the configuration are read (amxtileintrin.h): each prompt ends in a general protection fault. Without the
# macro there is no such code, and prompts are computed by the same kernels as single tokens are.
_NO_TILES = "-U__AMX_INT8__"

_LOADS = "import llama_cpp; llama_cpp.llama_backend_init()"


def cmake_args(backend: Backend, env: Mapping[str, str]) -> str:
    """CMake lets the last word win, and that is the user's."""
    flags = {"C": env.get("CFLAGS", ""), "CXX": env.get("CXXFLAGS", "")}
    compilers = [f"-DCMAKE_{language}_FLAGS={f'{given} {_NO_TILES}'.strip()}" for language, given in flags.items()]
    ours = shlex.join([*backend.cmake_args, _IMAGES, _OTHER_MACHINES, *compilers])
    return f"{ours} {env.get('CMAKE_ARGS', '')}".strip()


def build_wheel(
    pin: Pin, args: str, python: Path, scratch: Path, log: Path, follow: Callable[[list[str]], None]
) -> Path:
    included = scratch / "no-common.cmake"
    included.write_text(_NO_COMMON)
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
