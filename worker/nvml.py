"""What NVML, the library of NVIDIA's driver, tells of the machine's GPUs.

It knows them all, also those that CUDA_VISIBLE_DEVICES hides, and has an order of its own. So a GPU goes by its
PCI bus id here, which llama.cpp knows too.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pynvml

from atelier.hardware import Readings

PATIENCE_SECONDS = 5.0  # with a driver that does not answer


def gpu_readings(patience: float = PATIENCE_SECONDS) -> dict[str, Readings]:
    """By PCI bus id. Without NVML there are none; where the driver hangs, those that it had given before."""
    found: dict[str, Readings] = {}
    reader = threading.Thread(target=_read, args=(found,), daemon=True)
    reader.start()
    reader.join(patience)
    return found.copy()


def _read(found: dict[str, Readings]) -> None:
    """Into `found`, GPU by GPU.

    NVML is not shut down: where nothing else uses a GPU, it would be switched off, and llama.cpp wait for it anew.
    """
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        driver = _told(pynvml.nvmlSystemGetDriverVersion)
        for index in range(pynvml.nvmlDeviceGetCount()):
            with suppress(pynvml.NVMLError):  # one that is lost is no reason to leave out the next
                gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
                bus_id = _bus_id(pynvml.nvmlDeviceGetPciInfo(gpu))
                found[bus_id] = _readings(gpu, bus_id, driver)


def _bus_id(pci: Any) -> str:
    """As llama.cpp writes it. NVML's own text has capitals, and more digits."""
    return f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0"


def _readings(gpu: Any, bus_id: str, driver: str | None) -> Readings:
    utilization = _told(pynvml.nvmlDeviceGetUtilizationRates, gpu)
    memory = _told(pynvml.nvmlDeviceGetMemoryInfo, gpu, pynvml.nvmlMemory_v2)  # 1 counts the driver's own as used
    return Readings(
        uuid=_told(pynvml.nvmlDeviceGetUUID, gpu),
        pci_bus_id=bus_id,
        driver_version=driver,
        utilization_percent=utilization and utilization.gpu,
        memory_utilization_percent=utilization and utilization.memory,
        memory_used_bytes=memory and memory.used,
        temperature_celsius=_temperature(gpu),
        power_watts=_watts(_told(pynvml.nvmlDeviceGetPowerUsage, gpu)),
        power_limit_watts=_watts(_told(pynvml.nvmlDeviceGetEnforcedPowerLimit, gpu)),
    )


def _temperature(gpu: Any) -> int | None:
    """By the newer call, which old drivers lack, or the older one, which coming drivers will lack."""
    for ask in (pynvml.nvmlDeviceGetTemperatureV, pynvml.nvmlDeviceGetTemperature):
        told: int | None = _told(ask, gpu, pynvml.NVML_TEMPERATURE_GPU)
        if told is not None:
            return told
    return None


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _told(ask: Callable[..., Any], *arguments: Any) -> Any:
    """None where this GPU, or this driver, does not tell."""
    with suppress(pynvml.NVMLError):
        return ask(*arguments)
    return None
