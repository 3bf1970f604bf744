"""What set-up needs to know about this machine, observed once, so that every choice is a function of it."""

import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tool:
    """A compiler that is here, how it is called, and the version it gives itself."""

    command: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Machine:
    """A GPU is used when both its toolchain and a device are here: build servers carry nvcc without a GPU."""

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
    """CC and CXX may hold a launcher as well (`ccache g++`); like CMake, they win over what is usual."""
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
    """Model and instruction sets, which differ between machines of one platform name."""
    if platform.system() == "Darwin":
        return _output(["sysctl", "-n", "machdep.cpu.brand_string"]).strip()
    try:
        return cpu_identity(Path("/proc/cpuinfo").read_text())
    except OSError:
        return platform.processor()


def cpu_identity(cpuinfo: str) -> str:
    told = ("model name", "flags", "features", "cpu implementer", "cpu part", "isa")
    lines = {line for line in cpuinfo.splitlines() if line.split(":")[0].strip().lower() in told}
    return "\n".join(sorted(lines))


def _nvidia_gpus() -> tuple[str, ...]:
    # The driver's list is read first, because nvidia-smi wakes the GPUs and can take seconds. A container without the
    # GPUs sees the host's list all the same, but no control device.
    if Path("/dev/nvidiactl").exists():
        listed = Path("/proc/driver/nvidia/gpus").glob("*/information")
        models = [line for path in listed for line in path.read_text().splitlines() if line.startswith("Model:")]
        if models:
            return tuple(sorted(line.removeprefix("Model:").strip() for line in models))
    lines = _output(["nvidia-smi", "-L"]).splitlines()
    return tuple(line.split("(UUID")[0].strip() for line in lines if line.startswith("GPU "))


def _amd_gpus() -> tuple[str, ...]:
    """The architectures (`gfx_target_version`) of the nodes the compute driver knows; a CPU's node has 0."""
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
