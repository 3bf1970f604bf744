"""Which devices there are, asked of a process that ends again: the registry never opens a GPU itself."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from atelier.hardware import Readings
from atelier.launch import RPC_SERVERS
from registry.devices.compute_device import Device, Inventory
from registry.host_memory import has_gpu_backend, machine_memory
from registry.instances.worker_environment import worker_environment
from registry.pinning import device_environment

PROBE_SECONDS = 30.0
KILL_SECONDS = 2.0
RPC = "rpc"
HERE = "here"
FRESH_SECONDS = 2.0  # that an answer is good for
INTEGRATED = "integrated gpu"
KINDS = ("gpu", INTEGRATED)
NAME = re.compile(r"(?P<backend>[A-Za-z]+)(?P<number>\d*)")
BACKENDS = {"cuda": "cuda", "rocm": "rocm", "hip": "rocm", "vulkan": "vulkan", "metal": "metal", "mtl": "metal"}

InUse = Callable[[], Collection[str]]
"""The ids of devices that instances have now."""

_log = structlog.get_logger(__name__)


class Probe:
    """Owns the last answers, which are good for a moment. Where there can be no device, no process is asked."""

    def __init__(self, rpc_servers: Sequence[str] = ()) -> None:
        self._rpc_servers = rpc_servers
        self._answers: dict[str, list[Device]] = {}  # the last of each: of this machine, of each server
        self._asked_at: float | None = None
        self._changes = 0  # that were told of
        self._asking = asyncio.Lock()

    @property
    def may_have_gpus(self) -> bool:
        """Whether there is something to ask for."""
        return has_gpu_backend() or bool(self._rpc_servers)

    async def inventory(self, in_use: InUse = frozenset) -> Inventory:
        """What there is now. A look at this machine that fails is logged, and finds what there was.

        An RPC server that an instance has answers nobody else: it is not asked, and has no room. One that does not
        answer though none of ours has it is not there.
        """
        memory = await asyncio.to_thread(machine_memory)
        seen, having = await self._look(in_use), in_use()
        gpus = [replace(gpu, free=0) if gpu.exclusive and gpu.id in having else gpu for gpu in seen]
        return Inventory(gpus, memory.total, memory.available)

    def forget(self) -> None:
        """What was seen, or is being looked at, holds no more: something was loaded or unloaded."""
        self._asked_at = None
        self._changes += 1

    async def _look(self, in_use: InUse) -> list[Device]:
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if self._asked_at is None or now - self._asked_at > FRESH_SECONDS:
                before = self._changes
                await asyncio.gather(*self._questions(in_use))
                if self._changes == before:
                    self._asked_at = asyncio.get_running_loop().time()
            return [gpu for answer in self._answers.values() for gpu in answer]

    def _questions(self, in_use: InUse) -> Iterator[Awaitable[None]]:
        """One to this machine, if it can have GPUs, and one to each server: who does not answer harms no other."""
        if has_gpu_backend():
            self._answers.setdefault(HERE, [])
            yield self._note_here()
        for number, address in enumerate(self._rpc_servers):
            self._answers.setdefault(address, [])
            if f"{RPC}:{number}" not in in_use():
                yield self._note_server(number, address, in_use)

    async def _note_here(self) -> None:
        found = await ask()
        self._answers[HERE] = _still_there(self._answers[HERE]) if found is None else found

    async def _note_server(self, number: int, address: str, in_use: InUse) -> None:
        found = await ask_server(number, address)
        if found is not None:
            self._answers[address] = found
        elif f"{RPC}:{number}" not in in_use():  # an instance may have come before the question
            self._answers[address] = []


def _still_there(gpus: list[Device]) -> list[Device]:
    """What holds without an answer. How busy and warm they were then says nothing of now."""
    return [replace(gpu, readings=None) for gpu in gpus]


async def ask() -> list[Device] | None:
    """The GPUs of this machine; None when the process gave no answer."""
    said = await _said({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    return None if said is None else read_devices(said)


async def ask_server(number: int, address: str) -> list[Device] | None:
    """What the RPC server has, as one device: a worker is pinned to all of it or to nothing."""
    said = await _said({**device_environment(f"{RPC}:{number}"), RPC_SERVERS: address})
    return None if said is None else read_lent(said, number, address)


async def _said(environment: Mapping[str, str]) -> list[Mapping[str, Any]] | None:
    """What a worker prints of the devices that it sees; None when that is nothing."""
    log = _log.bind(of=environment.get(RPC_SERVERS, HERE))
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
            said, _ = await process.communicate()
        return read_said(said)
    except (TimeoutError, ValueError) as error:
        log.warning("devices_unknown", reason=str(error) or "no answer in time")
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await _ended(process)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Wait for it, but no longer than for one that can be killed: in a driver that hangs it cannot."""
    try:
        async with asyncio.timeout(KILL_SECONDS):
            await process.wait()
    except TimeoutError:
        _log.warning("process_not_ended", pid=process.pid, reason="a device's driver may hang")


def read_said(said: bytes) -> list[Mapping[str, Any]]:
    """The GPUs among what a worker prints; ValueError when it is no list."""
    devices = json.loads(said)
    if not isinstance(devices, list):
        raise ValueError("the worker printed no list")
    return [entry for entry in devices if entry["kind"] in KINDS]


def read_devices(gpus: Sequence[Mapping[str, Any]]) -> list[Device]:
    """By the names that they are pinned with."""
    return [device for entry in gpus if (device := _device(entry))]


def read_lent(gpus: Sequence[Mapping[str, Any]], number: int, address: str) -> list[Device]:
    """The devices of one server together."""
    total, free = (sum(entry[name] for entry in gpus) for name in ("memory_total", "memory_free"))
    return [Device(f"{RPC}:{number}", f"lent by {address}", total, free)] if gpus else []


def _device(entry: Mapping[str, Any]) -> Device | None:
    match = NAME.fullmatch(entry["name"])
    backend = BACKENDS.get(match["backend"].lower()) if match else None
    if match is None or backend is None:
        return None  # of a backend that nothing can be pinned to
    id = backend if backend == "metal" else f"{backend}:{match['number']}"
    readings = Readings(**entry["readings"]) if entry["readings"] else None
    memory, integrated = (entry["memory_total"], entry["memory_free"]), entry["kind"] == INTEGRATED
    return Device(id, entry["description"], *memory, integrated, readings)
