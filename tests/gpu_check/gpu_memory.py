"""What the driver reports of the machine's GPUs: their memory, and which processes use them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pynvml


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One GPU at one moment, numbered in the order of PCI buses, as CUDA numbers them for workers."""

    name: str
    total: int  # bytes
    used: int  # bytes, by all processes
    processes: Mapping[int, int | None] = field(default_factory=dict)  # bytes by pid; None: not reported


class Driver(Protocol):
    def read(self) -> Sequence[GpuUse]:
        """Every GPU, in the order of their PCI buses."""


class NoGpu(Exception):
    """The driver reports no GPU; the message says why."""


class Nvml:
    """NVML, the library of NVIDIA's driver."""

    def __init__(self) -> None:
        """Raises NoGpu."""
        try:
            pynvml.nvmlInit()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            self._handles = sorted(handles, key=_bus)
        except pynvml.NVMLError as error:
            raise NoGpu(f"NVML does not answer: {error}.") from error
        if not self._handles:
            raise NoGpu("NVML lists no GPU.")

    def read(self) -> Sequence[GpuUse]:
        return [_use(handle) for handle in self._handles]


def _bus(handle: object) -> tuple[int, int, int]:
    pci = pynvml.nvmlDeviceGetPciInfo(handle)
    return pci.domain, pci.bus, pci.device


def _use(handle: object) -> GpuUse:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
    processes = {each.pid: each.usedGpuMemory for each in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    return GpuUse(str(pynvml.nvmlDeviceGetName(handle)), memory.total, memory.used, processes)


def taken(before: Sequence[GpuUse], after: Sequence[GpuUse]) -> list[int]:
    """Bytes by which each GPU's use has grown."""
    return [now.used - then.used for then, now in zip(before, after, strict=True)]
