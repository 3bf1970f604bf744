"""Which devices there are, as reported by a short-lived process: the registry never opens a GPU itself."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypedDict

import structlog

from atelier.hardware import Readings
from atelier.json_types import Json
from atelier.launch import RPC_SERVERS
from atelier.machine_memory import machine_memory
from registry.devices.compute_device import Device, Inventory
from registry.devices.gpu_backends import has_gpu_backend
from registry.devices.pinning import device_environment, worker_environment

PROBE_SECONDS = 30.0
KILL_SECONDS = 2.0
RPC = "rpc"
LOCAL = "here"
FRESH_SECONDS = 2.0  # during which a report is used again
INTEGRATED = "integrated gpu"
KINDS = ("gpu", INTEGRATED)
NAME = re.compile(r"(?P<backend>[A-Za-z]+)(?P<number>\d*)")
BACKENDS = {"cuda": "cuda", "rocm": "rocm", "hip": "rocm", "vulkan": "vulkan", "metal": "metal", "mtl": "metal"}

InUse = Callable[[], Collection[str]]
"""Returns the ids of the devices that instances use now."""

_log = structlog.get_logger(__name__)


class ReportedDevice(TypedDict):
    """A device as `python -m worker --devices` prints it."""

    name: str
    kind: str
    description: str
    memory_total: int
    memory_free: int
    readings: Json | None


class DeviceProbe:
    """Owns the last reports, each used for a moment. Where there can be no GPU, no process is started."""

    def __init__(self, rpc_servers: Sequence[str] = ()) -> None:
        self._rpc_servers = rpc_servers
        self._reports: dict[str, list[Device]] = {}  # the last one of this machine, and of each server
        self._probed_at: float | None = None
        self._changes = 0  # number of calls of `forget`
        self._probing = asyncio.Lock()

    @property
    def may_have_gpus(self) -> bool:
        return has_gpu_backend() or bool(self._rpc_servers)

    async def inventory(self, in_use: InUse = frozenset) -> Inventory:
        """The devices and their free memory now. If probing this machine fails, its last report is used.

        An RPC server that an instance uses accepts no other connection: it is not probed, and has no free memory.
        One that no instance uses and that does not answer is left out.
        """
        memory = await asyncio.to_thread(machine_memory)
        found, used = await self._probe(in_use), in_use()
        gpus = [replace(gpu, free=0) if gpu.exclusive and gpu.id in used else gpu for gpu in found]
        return Inventory(gpus, memory.total, memory.available)

    def forget(self) -> None:
        """Invalidate all reports, the one in progress included: something was loaded or unloaded."""
        self._probed_at = None
        self._changes += 1

    async def _probe(self, in_use: InUse) -> list[Device]:
        async with self._probing:
            now = asyncio.get_running_loop().time()
            if self._probed_at is None or now - self._probed_at > FRESH_SECONDS:
                before = self._changes
                await asyncio.gather(*self._probes(in_use))
                if self._changes == before:
                    self._probed_at = asyncio.get_running_loop().time()
            return [gpu for report in self._reports.values() for gpu in report]

    def _probes(self, in_use: InUse) -> Iterator[Awaitable[None]]:
        """One of this machine, if it can have GPUs, and one of each server: apart, as a server may not answer."""
        if has_gpu_backend():
            self._reports.setdefault(LOCAL, [])
            yield self._note_local()
        for number, address in enumerate(self._rpc_servers):
            self._reports.setdefault(address, [])
            if f"{RPC}:{number}" not in in_use():
                yield self._note_server(number, address, in_use)

    async def _note_local(self) -> None:
        found = await probe_local()
        self._reports[LOCAL] = _without_readings(self._reports[LOCAL]) if found is None else found

    async def _note_server(self, number: int, address: str, in_use: InUse) -> None:
        found = await probe_server(number, address)
        if found is not None:
            self._reports[address] = found
        elif f"{RPC}:{number}" not in in_use():  # an instance may have connected before the probe
            self._reports[address] = []


def _without_readings(gpus: list[Device]) -> list[Device]:
    """What stays true of an old report; load and temperature do not."""
    return [replace(gpu, readings=None) for gpu in gpus]


async def probe_local() -> list[Device] | None:
    """The GPUs of this machine; None if the process reported nothing."""
    report = await _report({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    return None if report is None else read_devices(report)


async def probe_server(number: int, address: str) -> list[Device] | None:
    """The RPC server as one device: a worker is pinned to all of it or to nothing. None if it reported nothing."""
    report = await _report({**device_environment(f"{RPC}:{number}"), RPC_SERVERS: address})
    return None if report is None else read_server(report, number, address)


async def _report(environment: Mapping[str, str]) -> list[ReportedDevice] | None:
    """The GPUs that a worker with this environment sees; None if it fails."""
    log = _log.bind(of=environment.get(RPC_SERVERS, LOCAL))
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker", "--devices"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=worker_environment(os.environ, environment),
        )
    except OSError as error:  # no memory, or no descriptors
        log.warning("devices_unknown", reason=str(error))
        return None
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            output, _ = await process.communicate()
        return read_report(output)
    except (TimeoutError, ValueError) as error:
        log.warning("devices_unknown", reason=str(error) or "timed out")
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await _killed(process)


async def _killed(process: asyncio.subprocess.Process) -> None:
    """Wait for its end, but not forever: a process in a driver that hangs cannot be killed."""
    try:
        async with asyncio.timeout(KILL_SECONDS):
            await process.wait()
    except TimeoutError:
        _log.warning("probe_not_killed", pid=process.pid, reason="a device's driver may hang")


def read_report(output: bytes) -> list[ReportedDevice]:
    """The GPUs in a worker's output. Raises ValueError if it is not a list."""
    devices = json.loads(output)
    if not isinstance(devices, list):
        raise ValueError("the worker did not print a list")
    return [entry for entry in devices if entry["kind"] in KINDS]


def read_devices(gpus: Sequence[ReportedDevice]) -> list[Device]:
    """By the names that instances are pinned with."""
    return [device for entry in gpus if (device := _device(entry))]


def read_server(gpus: Sequence[ReportedDevice], number: int, address: str) -> list[Device]:
    """All devices of one server as one."""
    total, free = sum(entry["memory_total"] for entry in gpus), sum(entry["memory_free"] for entry in gpus)
    return [Device(f"{RPC}:{number}", f"lent by {address}", total, free)] if gpus else []


def _device(entry: ReportedDevice) -> Device | None:
    match = NAME.fullmatch(entry["name"])
    backend = BACKENDS.get(match["backend"].lower()) if match else None
    if match is None or backend is None:
        return None  # a backend whose devices cannot be pinned
    id = backend if backend == "metal" else f"{backend}:{match['number']}"
    readings = Readings(**entry["readings"]) if entry["readings"] else None
    memory, integrated = (entry["memory_total"], entry["memory_free"]), entry["kind"] == INTEGRATED
    return Device(id, entry["description"], *memory, integrated, readings)
