"""Reads the state of the machine's GPUs from NVML, the library of NVIDIA's driver.

NVML includes GPUs that CUDA_VISIBLE_DEVICES hides, and numbers them in an order of its own. So GPUs are identified by
their PCI bus ids, which llama.cpp reports too.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

import pynvml

from atelier.hardware import Readings

PATIENCE_SECONDS = 5.0  # a driver may not respond

T = TypeVar("T")


class PciInfo(Protocol):
    domain: int
    bus: int
    device: int


def gpu_readings(patience: float = PATIENCE_SECONDS) -> dict[str, Readings]:
    """The readings by PCI bus id. Empty without NVML; only some of the GPUs where the driver stops responding."""
    found: dict[str, Readings] = {}
    reader = threading.Thread(target=_read, args=(found,), daemon=True)
    reader.start()
    reader.join(patience)
    return found.copy()


def _read(found: dict[str, Readings]) -> None:
    """Add to `found`, GPU by GPU.

    NVML is not shut down: a GPU that nothing else uses would be powered off, and llama.cpp would wait for it again.
    """
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        driver = _value(pynvml.nvmlSystemGetDriverVersion)
        for index in range(pynvml.nvmlDeviceGetCount()):
            with suppress(pynvml.NVMLError):  # a GPU that is lost does not prevent reading the next
                gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
                bus_id = _bus_id(pynvml.nvmlDeviceGetPciInfo(gpu))
                found[bus_id] = _readings(gpu, bus_id, driver)


def _bus_id(pci: PciInfo) -> str:
    """As llama.cpp writes it. NVML's own text has capitals and more digits."""
    return f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0"


def _readings(gpu: object, bus_id: str, driver: str | None) -> Readings:
    utilization = _value(pynvml.nvmlDeviceGetUtilizationRates, gpu)
    # Version 1 counts the memory that the driver itself uses.
    memory = _value(pynvml.nvmlDeviceGetMemoryInfo, gpu, pynvml.nvmlMemory_v2)
    return Readings(
        uuid=_value(pynvml.nvmlDeviceGetUUID, gpu),
        pci_bus_id=bus_id,
        driver_version=driver,
        utilization_percent=utilization and utilization.gpu,
        memory_utilization_percent=utilization and utilization.memory,
        memory_used_bytes=memory and memory.used,
        temperature_celsius=_temperature(gpu),
        power_watts=_watts(_value(pynvml.nvmlDeviceGetPowerUsage, gpu)),
        power_limit_watts=_watts(_value(pynvml.nvmlDeviceGetEnforcedPowerLimit, gpu)),
    )


def _temperature(gpu: object) -> int | None:
    """Old drivers lack the newer call, and future drivers will lack the older one."""
    for call in (pynvml.nvmlDeviceGetTemperatureV, pynvml.nvmlDeviceGetTemperature):
        celsius: int | None = _value(call, gpu, pynvml.NVML_TEMPERATURE_GPU)
        if celsius is not None:
            return celsius
    return None


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _value(call: Callable[..., T], *arguments: object) -> T | None:
    """The value; None where the GPU or its driver does not report it."""
    with suppress(pynvml.NVMLError):
        return call(*arguments)
    return None
