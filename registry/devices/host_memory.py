"""The memory of the registry's machine or container, and whether its llama.cpp supports GPUs."""

import functools
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
GPU_BACKENDS = ("cuda", "hip", "vulkan", "metal", "sycl", "musa", "opencl")


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes. The kernel's caches count as available, a mapped model's pages among them."""

    total: int
    available: int


def machine_memory(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> Memory:
    """Of the machine, or of the registry's container if that has a lower limit."""
    machine = _of_machine(meminfo)
    container = _of_container(cgroup)
    if container is None or container.total >= machine.total:
        return machine
    return Memory(container.total, min(container.available, machine.available))


def _of_machine(meminfo: Path) -> Memory:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        entries = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        return Memory(total, int(entries["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):  # a system without it does not report what is available
        return Memory(total, total)


def _of_container(cgroup: Path) -> Memory | None:
    """By control groups, version 2; None without a limit."""
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return Memory(limit, max(0, limit - used + int(statistics.get("inactive_file", 0))))
    except (OSError, ValueError):
        return None


@functools.cache
def has_gpu_backend() -> bool:
    """Whether this build of llama.cpp has a GPU backend, by the libraries that it ships."""
    spec = importlib.util.find_spec("llama_cpp")  # found, not imported: importing would open devices
    if spec is None or spec.origin is None:
        return False
    names = [path.name for path in (Path(spec.origin).parent / "lib").glob("*ggml-*")]
    return any(backend in name for name in names for backend in GPU_BACKENDS)
