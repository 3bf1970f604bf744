"""What set-up needs to know about this machine, observed once; and what the machine must have before a long build."""

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.setup import SetupError


@dataclass(frozen=True)
class Tool:
    """A compiler: how it is called, and the version that it reports."""

    command: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Machine:
    """A GPU needs both a toolchain and a device: build servers have nvcc without a GPU."""

    system: str
    arch: str
    platform: str
    cpu: str
    cxx: Tool | None
    nvcc: Tool | None
    nvidia_gpus: tuple[str, ...]
    hipcc: Tool | None
    amd_gpus: tuple[str, ...]
    glslc: Tool | None
    vulkan_headers: bool
    render_nodes: tuple[str, ...]


def observe_machine(env: Mapping[str, str]) -> Machine:
    return Machine(
        system=platform.system(),
        arch=platform.machine(),
        platform=" ".join([sysconfig.get_platform(), *platform.libc_ver()]),
        cpu=_cpu(),
        cxx=find_compiler(env.get("CXX"), ["c++", "g++", "clang++"]),
        nvcc=find_tool("nvcc", [*_bin_folders(env, "CUDA_HOME", "CUDA_PATH"), "/usr/local/cuda/bin"]),
        nvidia_gpus=_nvidia_gpus(),
        hipcc=find_tool("hipcc", [*_bin_folders(env, "ROCM_PATH"), "/opt/rocm/bin"]),
        amd_gpus=_amd_gpus(),
        glslc=find_tool("glslc", _bin_folders(env, "VULKAN_SDK")),
        vulkan_headers=_has_vulkan_headers(env),
        render_nodes=tuple(sorted(str(node) for node in Path("/dev/dri").glob("renderD*"))),
    )


def find_compiler(named: str | None, usual: Iterable[str]) -> Tool | None:
    """The compiler named by CC or CXX, which may include a launcher (`ccache g++`); if unset, the first usual one."""
    if named:
        return _tool(shlex.split(named))
    return next((tool for name in usual if (tool := find_tool(name))), None)


def find_tool(name: str, folders: Iterable[str] = ()) -> Tool | None:
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *folders])
    path = shutil.which(name, path=places)
    return _tool([path]) if path else None


def _tool(command: list[str]) -> Tool | None:
    version = _output([*command, "--version"])
    return Tool(tuple(command), " ".join(version.split())) if version else None


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _bin_folders(env: Mapping[str, str], *variables: str) -> list[str]:
    return [str(Path(env[name], "bin")) for name in variables if env.get(name)]


def _cpu() -> str:
    """Model and instruction sets, which differ between machines of the same platform."""
    if platform.system() == "Darwin":
        return _output(["sysctl", "-n", "machdep.cpu.brand_string"]).strip()
    try:
        return cpu_identity(Path("/proc/cpuinfo").read_text())
    except OSError:
        return platform.processor()


def cpu_identity(cpuinfo: str) -> str:
    identifying = ("model name", "flags", "features", "cpu implementer", "cpu part", "isa")
    lines = {line for line in cpuinfo.splitlines() if line.split(":")[0].strip().lower() in identifying}
    return "\n".join(sorted(lines))


def _nvidia_gpus() -> tuple[str, ...]:
    # The driver's list comes first, as nvidia-smi wakes the GPUs, which can take seconds. A container without GPUs sees
    # the host's list, but has no control device.
    if Path("/dev/nvidiactl").exists():
        listed = Path("/proc/driver/nvidia/gpus").glob("*/information")
        models = [line for path in listed for line in path.read_text().splitlines() if line.startswith("Model:")]
        if models:
            return tuple(sorted(line.removeprefix("Model:").strip() for line in models))
    lines = _output(["nvidia-smi", "-L"]).splitlines()
    return tuple(line.split("(UUID")[0].strip() for line in lines if line.startswith("GPU "))


def _amd_gpus() -> tuple[str, ...]:
    """The architectures (`gfx_target_version`) of the compute driver's nodes; a CPU's is 0."""
    if not Path("/dev/kfd").exists():
        return ()
    nodes = Path("/sys/class/kfd/kfd/topology/nodes").glob("*/properties")
    lines = [line.split() for node in nodes for line in node.read_text().splitlines()]
    return tuple(
        sorted(f"gfx {words[1]}" for words in lines if words[:1] == ["gfx_target_version"] and words[1] != "0")
    )


def _has_vulkan_headers(env: Mapping[str, str]) -> bool:
    roots = [Path(env["VULKAN_SDK"])] if env.get("VULKAN_SDK") else [Path("/usr"), Path("/usr/local")]
    needed = ("include/vulkan/vulkan.h", "*/cmake/SPIRV-Headers/SPIRV-HeadersConfig.cmake")
    return all(any(next(root.glob(name), None) for root in roots) for name in needed)


_FREE_GB_NEEDED = 3
_COMPILERS_MISSING = "apt install build-essential, dnf install gcc gcc-c++, or on macOS xcode-select --install"


def require_venv() -> None:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(f"this Python lacks the module {' and '.join(missing)}: apt install python3-venv")


def require_free_disk(root: Path) -> None:
    free = shutil.disk_usage(root).free / 1e9
    if free < _FREE_GB_NEEDED:
        raise SetupError(f"{root} has {free:.1f} GB free; set-up needs {_FREE_GB_NEEDED} GB")


def require_compilers(env: Mapping[str, str]) -> None:
    _require_compiler("C", find_compiler(env.get("CC"), ["cc", "gcc", "clang"]))
    cxx = _require_compiler("C++", find_compiler(env.get("CXX"), ["c++", "g++", "clang++"]))
    _require_cpp_headers(cxx)


def _require_compiler(language: str, found: Tool | None) -> Tool:
    if found is None:
        raise SetupError(f"no {language} compiler found: {_COMPILERS_MISSING}")
    return found


def _require_cpp_headers(cxx: Tool) -> None:
    # Without the standard library's headers, the build would fail after the download, with pages of CMake's output.
    command = [*cxx.command, "-std=c++17", "-fsyntax-only", "-x", "c++", "-"]
    program = "#include <filesystem>\nint main() {}\n"
    if subprocess.run(command, input=program, text=True, capture_output=True).returncode:
        raise SetupError(f"`{' '.join(command)}` cannot compile C++17: {_COMPILERS_MISSING}")
