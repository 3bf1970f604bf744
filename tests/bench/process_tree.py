"""The resources used by all processes of a server together."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

SAMPLE_SECONDS = 1.0
MOST_SHARE = 0.01  # of a core for the samples: the kernel walks all pages of a process for each
END_SECONDS = 15.0
MIB = 2**20


def tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def cpu_seconds(pid: int) -> float:
    """Of the processes that live and, through the parents that reaped them, of those that ended."""
    total = 0.0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])  # user, system, and both of reaped children
    return total


@dataclass(frozen=True, slots=True)
class Memory:
    """In MiB. The proportional size counts a page that n processes share as 1/n in each; 0 where it is unknown."""

    resident: float = 0.0
    proportional: float = 0.0

    def peak(self, other: "Memory") -> "Memory":
        return Memory(max(self.resident, other.resident), max(self.proportional, other.proportional))


def memory(pid: int) -> Memory:
    resident = proportional = 0.0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            info = process.memory_full_info()
            resident += info.rss / MIB
            proportional += getattr(info, "pss", 0) / MIB
    return Memory(resident, proportional)


class MemoryWatch:
    """Samples at most once a second, in a thread, and at the end; keeps the maximum."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.most = Memory()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        pause = SAMPLE_SECONDS
        while not self._over.wait(pause):
            began = time.monotonic()
            self._look()
            pause = max(SAMPLE_SECONDS, (time.monotonic() - began) / MOST_SHARE)

    def _look(self) -> None:
        self.most = self.most.peak(memory(self._pid))


@contextmanager
def ended_with_its_children(pid: int) -> Iterator[None]:
    """The process and its children are always ended afterwards."""
    try:
        yield
    finally:
        processes = tree(pid)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, left = psutil.wait_procs(processes, timeout=END_SECONDS)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=END_SECONDS)
