"""The CPU cores of this machine: which there are, and which of them are two faces of one."""

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")


def available_cores() -> frozenset[int]:
    """The cores that this process, and so its children, may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def physical_cores(cores: Iterable[int], topology: Path = TOPOLOGY) -> list[list[int]]:
    """The cores by physical core, neighbours side by side; each by itself where the system does not say."""
    siblings: dict[str, list[int]] = {}
    for core in sorted(cores):
        siblings.setdefault(_siblings(core, topology), []).append(core)
    return list(siblings.values())


def bind(pid: int, cores: Collection[int]) -> bool:
    """Hold a process, with all threads that it has and will have, to these cores; whether the system could."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    bound: set[int] = set()
    try:
        # A thread that begins meanwhile has the cores of the one that began it: look until nothing is new.
        while new := {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()} - bound:
            for thread in new:
                with suppress(ProcessLookupError):  # it has ended
                    os.sched_setaffinity(thread, cores)
            bound |= new
    except OSError:
        return False  # it has ended, or is not ours to bind
    return True


def _siblings(core: int, topology: Path) -> str:
    try:
        return (topology / f"cpu{core}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(core)
