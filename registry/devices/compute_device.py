"""The devices that models can be placed on, and how load settings name them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atelier.hardware import Readings

CPU = "cpu"
EXCLUSIVE = ("rpc",)
"""Backends whose devices serve one process at a time, however much memory is free."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as llama.cpp sees it, by the name that instances are pinned with."""

    id: str  # "cuda:0"
    description: str  # "NVIDIA H100 80GB HBM3"
    total: int  # bytes of memory
    free: int
    integrated: bool = False  # llama.cpp ignores such a GPU if there is another
    readings: Readings | None = None  # of its driver, if that provides any

    @property
    def backend(self) -> str:
        return self.id.partition(":")[0]

    @property
    def exclusive(self) -> bool:
        """Whether an instance has all of it or nothing."""
        return self.backend in EXCLUSIVE

    @property
    def number(self) -> str:
        return self.id.partition(":")[2]

    def usable(self, kept: float) -> int:
        """Bytes that may be granted, if this share of its memory is to stay free."""
        return max(0, self.free - round(kept * self.total))


@dataclass(frozen=True, slots=True)
class Inventory:
    """All GPUs, and main memory in bytes."""

    gpus: Sequence[Device]
    memory_total: int
    memory_available: int

    def usable_main(self, kept: float) -> int:
        """Bytes of main memory that may be granted, if this share of it is to stay free."""
        return max(0, self.memory_available - round(kept * self.memory_total))


def pin_name(devices: Sequence[Device]) -> str:
    """As the load setting `device` names them: "cuda:0,1"; the one device of Metal has no number."""
    if not devices:
        return CPU
    numbers = ",".join(device.number for device in devices)
    return f"{devices[0].backend}:{numbers}" if numbers else devices[0].backend


def ids_of(name: str) -> list[str]:
    """The devices in such a name, in its order, in which llama.cpp numbers them."""
    backend, _, numbers = name.partition(":")
    return [f"{backend}:{int(number)}" for number in numbers.split(",")] if numbers else [backend]


def split_of(devices: Sequence[Device], shares: Mapping[str, int]) -> list[float]:
    """The load setting `tensor_split`: each device's share of what they hold together."""
    whole = sum(shares[device.id] for device in devices)
    return [round(shares[device.id] / whole, 4) for device in devices] if len(devices) > 1 and whole else []


def readable(count: int) -> str:
    """A number of bytes, human-readable."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{math.ceil(count / 2**20)} MiB"
