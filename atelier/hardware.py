"""The machine's hardware: its CPU cores, and what a GPU's driver reports."""

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """One GPU at one moment. A worker's process reads it, the registry forwards it, the gateway returns it.

    None: the GPU or its driver does not report the value.
    """

    uuid: str | None = None  # "GPU-...", as nvidia-smi shows it
    pci_bus_id: str | None = None  # "0000:c1:00.0"
    driver_version: str | None = None
    utilization_percent: int | None = None  # share of the last sample period in which it computed
    memory_utilization_percent: int | None = None  # share in which its memory was read or written
    memory_used_bytes: int | None = None  # by all processes of the machine
    temperature_celsius: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None


def available_cores() -> frozenset[int]:
    """The cores that this process and its children may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def physical_cores(cores: Iterable[int], topology: Path = TOPOLOGY) -> list[list[int]]:
    """The cores grouped by physical core; each alone where the system does not report its siblings."""
    siblings: dict[str, list[int]] = {}
    for core in sorted(cores):
        siblings.setdefault(_siblings(core, topology), []).append(core)
    return list(siblings.values())


def bind(pid: int, cores: Collection[int]) -> bool:
    """Restrict a process, with all its present and future threads, to these cores; whether that succeeded."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    bound: set[int] = set()
    try:
        # A thread that starts meanwhile inherits the cores of its parent thread: repeat until no thread is new.
        while new := {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()} - bound:
            for thread in new:
                with suppress(ProcessLookupError):  # it has ended
                    os.sched_setaffinity(thread, cores)
            bound |= new
    except OSError:
        return False  # the process has ended, or belongs to another user
    return True


def _siblings(core: int, topology: Path) -> str:
    try:
        return (topology / f"cpu{core}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(core)
