"""Which devices there are, asked of a process that ends again: the registry never opens a GPU itself."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

import structlog

from registry.devices.device import Device, Inventory
from registry.instances.environment import worker_environment
from registry.machine import has_gpu_backend, machine_memory

PROBE_SECONDS = 30.0
FRESH_SECONDS = 2.0  # that an answer is good for
INTEGRATED = "integrated gpu"
KINDS = ("gpu", INTEGRATED)
NAME = re.compile(r"(?P<backend>[A-Za-z]+)(?P<number>\d*)")
BACKENDS = {"cuda": "cuda", "rocm": "rocm", "hip": "rocm", "vulkan": "vulkan", "metal": "metal", "mtl": "metal"}

_log = structlog.get_logger(__name__)


class Probe:
    """Owns the last answer, which is good for a moment. Without a GPU backend in llama.cpp no process is asked."""

    def __init__(self) -> None:
        self._gpus: list[Device] = []
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()

    async def inventory(self) -> Inventory:
        """What there is now. A probe that fails is logged, and finds those that there were."""
        memory = await asyncio.to_thread(machine_memory)
        return Inventory(await self._look() if has_gpu_backend() else [], memory.total, memory.available)

    def forget(self) -> None:
        """What was seen holds no more: something was loaded or unloaded."""
        self._asked_at = None

    async def _look(self) -> list[Device]:
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if self._asked_at is None or now - self._asked_at > FRESH_SECONDS:
                found = await ask()
                self._gpus = self._gpus if found is None else found  # no answer: what was there will be there still
                self._asked_at = asyncio.get_running_loop().time()
            return self._gpus


async def ask() -> list[Device] | None:
    """The GPUs; None when the process gave no answer."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "--devices"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=worker_environment(os.environ, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
    )
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            said, _ = await process.communicate()
        return read_devices(said)
    except (TimeoutError, ValueError) as error:
        _log.warning("devices_unknown", reason=str(error) or "no answer in time")
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def read_devices(said: bytes) -> list[Device]:
    """The GPUs among what a worker prints, by the names that they are pinned with. ValueError when it is none."""
    devices = json.loads(said)
    if not isinstance(devices, list):
        raise ValueError("the worker printed no list")
    return [device for entry in devices if entry["kind"] in KINDS and (device := _device(entry))]


def _device(entry: Mapping[str, Any]) -> Device | None:
    match = NAME.fullmatch(entry["name"])
    backend = BACKENDS.get(match["backend"].lower()) if match else None
    if match is None or backend is None:
        return None  # of a backend that nothing can be pinned to
    id = backend if backend == "metal" else f"{backend}:{match['number']}"
    return Device(id, entry["description"], entry["memory_total"], entry["memory_free"], entry["kind"] == INTEGRATED)
