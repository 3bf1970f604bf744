"""What a GPU's driver tells of it: a worker's process reads it, the registry passes it on, the gateway shows it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Of one GPU at one moment. None: this GPU or its driver does not tell."""

    uuid: str | None = None  # "GPU-...", as nvidia-smi has it
    pci_bus_id: str | None = None  # "0000:c1:00.0"
    driver_version: str | None = None
    utilization_percent: int | None = None  # of the last moments, those in which it computed
    memory_utilization_percent: int | None = None  # those in which its memory was read or written
    memory_used_bytes: int | None = None  # by all processes of the machine
    temperature_celsius: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
