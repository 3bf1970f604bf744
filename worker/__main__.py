"""A worker: the registry starts one process for each instance, or starts one in advance with `--spare`.

`python -m worker --devices` lists the devices that can hold models; `--lend` makes them usable by other machines.
"""

import argparse
import asyncio
import dataclasses
import importlib
import json
import os
import sys
from pathlib import Path

from atelier.launch import LaunchSpec, Order, read_order, take_spec

# What the engine imports, except llama.cpp: on loading, this reads the environment that chooses its devices.
AHEAD = (
    *("atelier.config", "atelier.lifecycle", "atelier.logs", "worker.server"),
    *("numpy", "numpy.typing", "jinja2.sandbox", "jinja2.ext", "llguidance.numpy"),
    *("concurrent.futures.thread", "diskcache", "multiprocessing.context"),
)


def main() -> None:
    limit_threads()
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--spec", type=Path, help="launch file written by the registry")
    mode.add_argument(
        "--spare",
        metavar="RUN_DIR",
        help="import what can be imported in advance, then wait for an order on standard input",
    )
    mode.add_argument("--devices", action="store_true", help="print the devices that llama.cpp finds, as JSON")
    mode.add_argument(
        "--lend", metavar="HOST:PORT", help="serve this machine's devices to other machines over llama.cpp's RPC"
    )
    arguments = parser.parse_args()
    if arguments.devices:
        print_devices()
    elif arguments.lend:
        lend_devices(arguments.lend)
    else:
        work(arguments.spec)


def work(spec: Path | None) -> None:
    """Run the worker of this spec; without one, of the spec that an order names."""
    if path := spec or await_order():
        run(take_spec(path))


def print_devices() -> None:
    """Print the devices for the registry, which never opens one itself."""
    from worker.nvml import gpu_readings

    readings = gpu_readings()  # before llama.cpp, which takes some of a GPU's memory to examine it

    from llama_cpp import llama_cpp as ll

    from worker.engine.model.llama_devices import visible_devices
    from worker.engine.model.rpc_servers import add_rpc_devices

    ll.llama_backend_init()
    add_rpc_devices()
    devices = [{**dataclasses.asdict(device), "readings": readings.get(device.bus_id)} for device in visible_devices()]
    print(json.dumps(devices, default=dataclasses.asdict))


def lend_devices(address: str) -> None:
    """Serve this machine's devices to other machines, until the process is stopped."""
    from llama_cpp import llama_cpp as ll

    from atelier.hardware import available_cores, physical_cores
    from worker.engine.model.rpc_servers import lend

    ll.llama_backend_init()
    lend(address, len(physical_cores(available_cores())))


def run(spec: LaunchSpec) -> None:
    from atelier.config import Config
    from atelier.logs import configure_logs

    configure_logs(Config(), "worker", instance=spec.instance_id)
    pin_to_cores(spec.cores)
    asyncio.run(serve(spec))


def await_order() -> Path | None:
    """Import in advance, then wait for the order: the path of its spec, or None if the registry has ended."""
    for name in AHEAD:
        importlib.import_module(name)
    line = sys.stdin.buffer.readline()
    if not line:
        return None
    order = read_order(line)
    obey(order)
    return Path(order.spec)


def obey(order: Order) -> None:
    """Give this process the environment and the log that it would have been started with for the order."""
    os.environ.update(order.environment)
    redirect(order.log, os.O_WRONLY | os.O_APPEND, 1, 2)
    redirect(os.devnull, os.O_RDONLY, 0)


def redirect(path: str, flags: int, *descriptors: int) -> None:
    opened = os.open(path, flags)
    for descriptor in descriptors:
        os.dup2(opened, descriptor)
    os.close(opened)


def pin_to_cores(cores: list[int]) -> None:
    """Call this before any thread starts, so that llama.cpp's threads inherit the cores."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def limit_threads() -> None:
    """Call this before numpy and llama.cpp are loaded, which then read these variables.

    OpenMP's threads spin while they wait for one another. On cores that are shared, a long spin keeps away the very
    thread that it waits for: two busy workers on the same two cores lose nine tenths of their speed. A short one costs
    nothing. numpy's own threads have no work here.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


async def serve(spec: LaunchSpec) -> None:
    from atelier.lifecycle import stop_event
    from worker.server import WorkerServer  # loads llama.cpp: only now are devices and cores fixed

    stop = stop_event()
    server = WorkerServer(spec)
    await server.start()
    await server.run(stop)


if __name__ == "__main__":
    main()
