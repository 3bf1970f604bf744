"""What models can be put on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atelier.readings import Readings

CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as llama.cpp sees it, by the name that it is pinned with."""

    id: str  # "cuda:0"
    description: str  # "NVIDIA H100 80GB HBM3"
    total: int  # bytes of memory
    free: int
    readings: Readings | None = None  # of its driver, if that tells any

    @property
    def backend(self) -> str:
        return self.id.partition(":")[0]

    @property
    def number(self) -> str:
        return self.id.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Inventory:
    """All devices, and the main memory. In bytes."""

    gpus: Sequence[Device]
    memory_total: int
    memory_available: int


def pin_name(devices: Sequence[Device]) -> str:
    """As the load setting `device` names them: "cuda:0,1"; Metal's only one has no number."""
    if not devices:
        return CPU
    numbers = ",".join(device.number for device in devices)
    return f"{devices[0].backend}:{numbers}" if numbers else devices[0].backend


def split_of(devices: Sequence[Device], shares: Mapping[str, int]) -> list[float]:
    """The load setting `tensor_split`: each device's share of what they hold together."""
    whole = sum(shares[device.id] for device in devices)
    return [round(shares[device.id] / whole, 4) for device in devices] if len(devices) > 1 and whole else []
