"""The memory of this machine, or of the container that this process is in, and how much of it a cache may take."""

import os
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
LARGEST_CACHE = 8 * 2**30  # bytes
CACHE_SHARE = 4  # a cache takes at most one part in so many of what is free


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes. The kernel's caches count as available, a mapped model's pages among them."""

    total: int
    available: int


def machine_memory(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> Memory:
    """Of the machine, or of this process's container if that has a lower limit."""
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


def cache_share(free: int) -> int:
    """Bytes that a cache may take where so many are free: each further cache a share of what the others leave."""
    return min(LARGEST_CACHE, max(0, free) // CACHE_SHARE)
