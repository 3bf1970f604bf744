"""Devices of other machines by llama.cpp's RPC: this process uses theirs, or serves its own.

llama.cpp's client aborts its process when a server disconnects or has another protocol version. So only workers and
the process that lists devices use it, and no process that others depend on.

A server serves one process at a time. It accepts a second process's connection, and never answers it.
"""

import ctypes
import os
import socket
import threading
from collections.abc import Sequence
from itertools import accumulate, pairwise

from atelier.errors import LoadFailed
from atelier.launch import RPC_SERVERS
from worker.engine.model.llama_devices import gpus, open_ggml, visible_devices

ANSWER_SECONDS = 5.0


def add_rpc_devices() -> list[int]:
    """Register the devices of this process's RPC servers with llama.cpp; returns how many each server has.

    Raises LoadFailed if a server does not answer or serves another process, or this build has no RPC.
    """
    addresses = [address for address in os.environ.get(RPC_SERVERS, "").split(",") if address]
    if not addresses:
        return []
    rpc, ggml = _library(), open_ggml()
    counts = []
    for address in addresses:
        _require_listener(address)
        before = ggml.ggml_backend_dev_count()
        ggml.ggml_backend_register(_greeted(rpc, address))
        counts.append(ggml.ggml_backend_dev_count() - before)
    return counts


def shares_of_devices(shares: Sequence[float], counts: Sequence[int], free: Sequence[int]) -> list[float]:
    """The servers' shares, divided among their devices in proportion to free memory: llama.cpp knows devices only."""
    ends = list(accumulate(counts, initial=0))
    groups = [_parts(free[start:end]) for start, end in pairwise(ends)]
    return [share * part for share, parts in zip(shares, groups, strict=False) for part in parts]


def _parts(free: Sequence[int]) -> list[float]:
    """Fractions that add up to 1; equal where free memory is unknown."""
    return [room / sum(free) for room in free] if any(free) else [1 / len(free) for _ in free]


def lend(address: str, threads: int) -> None:
    """Serve this machine's devices, its GPUs or else its CPU, at host:port until the process ends."""
    rpc, ggml = _library(), open_ggml()
    handles = _lent(ggml)
    devices = (ctypes.c_void_p * len(handles))(*handles)
    rpc.ggml_backend_rpc_start_server(address.encode(), None, threads, len(handles), devices)


def _lent(ggml: ctypes.CDLL) -> Sequence[int]:
    devices = visible_devices()
    wanted = {device.name for device in gpus(devices)} or {"CPU"}
    return [ggml.ggml_backend_dev_get(number) for number, device in enumerate(devices) if device.name in wanted]


def _require_listener(address: str) -> None:
    """Raises LoadFailed: llama.cpp would abort the process if it could not connect."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise LoadFailed(
            f"The RPC server {address} does not answer: {error}. Start one there, or correct ATELIER_RPC_SERVERS.",
            param="device",
        ) from None


def _greeted(rpc: ctypes.CDLL, address: str) -> int | None:
    """llama.cpp's handle for the server. Requested on a thread, as llama.cpp waits for an answer without a limit."""
    found: list[int | None] = []
    asking = threading.Thread(
        target=lambda: found.append(rpc.ggml_backend_rpc_add_server(address.encode())), daemon=True
    )
    asking.start()
    asking.join(ANSWER_SECONDS)
    if not found:
        raise LoadFailed(
            f"The RPC server {address} accepts connections and does not answer. It serves one instance at a time: "
            "unload the other, or start a server for each.",
            param="device",
        )
    return found[0]


def _library() -> ctypes.CDLL:
    rpc = open_ggml()
    if not hasattr(rpc, "ggml_backend_rpc_add_server"):
        raise LoadFailed("This build of llama.cpp cannot use other machines' devices.", param="device")
    rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    rpc.ggml_backend_rpc_add_server.argtypes = [ctypes.c_char_p]
    rpc.ggml_backend_rpc_start_server.restype = None
    rpc.ggml_backend_rpc_start_server.argtypes = [
        *(ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t),
        ctypes.POINTER(ctypes.c_void_p),
    ]
    return rpc
