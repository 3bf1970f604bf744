"""What the machine has to have, asked before anything starts that takes minutes."""

import importlib.util
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from deploy.setup.build_machine import Tool, find_compiler
from deploy.setup.setup_error import SetupError

_FREE_GB_NEEDED = 3
_COMPILERS_MISSING = "apt install build-essential, dnf install gcc gcc-c++, or on macOS xcode-select --install"


def require_venv() -> None:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(f"this Python lacks its module {' and '.join(missing)}: apt install python3-venv")


def require_free_disk(root: Path) -> None:
    free = shutil.disk_usage(root).free / 1e9
    if free < _FREE_GB_NEEDED:
        raise SetupError(f"{root} has {free:.1f} GB free, and set-up needs {_FREE_GB_NEEDED} GB")


def require_compilers(env: Mapping[str, str]) -> None:
    _require_compiler("C", find_compiler(env.get("CC"), ["cc", "gcc", "clang"]))
    cxx = _require_compiler("C++", find_compiler(env.get("CXX"), ["c++", "g++", "clang++"]))
    _require_cpp_headers(cxx)


def _require_compiler(language: str, found: Tool | None) -> Tool:
    if found is None:
        raise SetupError(f"no {language} compiler found: {_COMPILERS_MISSING}")
    return found


def _require_cpp_headers(cxx: Tool) -> None:
    # A compiler without its standard library fails only after the download, with a page of CMake's words.
    command = [*cxx.command, "-std=c++17", "-fsyntax-only", "-x", "c++", "-"]
    program = "#include <filesystem>\nint main() {}\n"
    if subprocess.run(command, input=program, text=True, capture_output=True).returncode:
        raise SetupError(f"`{' '.join(command)}` cannot compile C++17: {_COMPILERS_MISSING}")
