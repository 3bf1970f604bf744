"""Devices of other machines, through llama.cpp's own RPC: used from here, or lent from here.

A server that breaks off, or speaks another version, ends the process that uses it: that is how llama.cpp's
client is. It is a worker then, or the one that lists devices, and never one that others depend on.

A server serves one process at a time. It takes the connection of a second one, and leaves it without a word.
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
    """Make the devices of the servers that this process was given known to llama.cpp, in their order.

    How many each server has. LoadFailed when one does not answer, or serves another process, or this build cannot
    reach any.
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
    """The shares of servers as those of their devices, of which llama.cpp knows alone: within one by what is free."""
    ends = list(accumulate(counts, initial=0))
    groups = [_parts(free[start:end]) for start, end in pairwise(ends)]
    return [share * part for share, parts in zip(shares, groups, strict=False) for part in parts]


def _parts(free: Sequence[int]) -> list[float]:
    """Of one; equal where nobody says what is free."""
    return [room / sum(free) for room in free] if any(free) else [1 / len(free) for _ in free]


def lend(address: str, threads: int) -> None:
    """Serve this machine's devices, its GPUs or else its CPU, at host:port until the process is ended."""
    rpc, ggml = _library(), open_ggml()
    handles = _lent(ggml)
    devices = (ctypes.c_void_p * len(handles))(*handles)
    rpc.ggml_backend_rpc_start_server(address.encode(), None, threads, len(handles), devices)


def _lent(ggml: ctypes.CDLL) -> Sequence[int]:
    devices = visible_devices()
    wanted = {device.name for device in gpus(devices)} or {"CPU"}
    return [ggml.ggml_backend_dev_get(number) for number, device in enumerate(devices) if device.name in wanted]


def _require_listener(address: str) -> None:
    """To llama.cpp a server that is not there is the end of the process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise LoadFailed(
            f"The RPC server {address} does not answer: {error}. Start one there, or correct ATELIER_RPC_SERVERS.",
            param="device",
        ) from None


def _greeted(rpc: ctypes.CDLL, address: str) -> int | None:
    """llama.cpp's handle for the server; on a thread, as it would wait for ever for one that says nothing."""
    found: list[int | None] = []
    asking = threading.Thread(
        target=lambda: found.append(rpc.ggml_backend_rpc_add_server(address.encode())), daemon=True
    )
    asking.start()
    asking.join(ANSWER_SECONDS)
    if not found:
        raise LoadFailed(
            f"The RPC server {address} takes connections and says nothing. It serves one instance at a time: "
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
