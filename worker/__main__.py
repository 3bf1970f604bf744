"""`python -m worker --spec FILE`: the registry starts one for each instance, or has one wait with `--spare`.

`python -m worker --devices` says what there is to put models on; `--lend` lets other machines use it.
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

# What the engine will import, but for llama.cpp: loading that reads the environment that pins it.
AHEAD = (
    *("atelier.config", "atelier.lifecycle", "atelier.logs", "worker.server"),
    *("numpy", "numpy.typing", "jinja2.sandbox", "jinja2.ext", "llguidance.numpy"),
    *("concurrent.futures.thread", "diskcache", "multiprocessing.context"),
)


def main() -> None:
    limit_threads()
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--spec", type=Path, help="the launch file that the registry wrote")
    way.add_argument("--spare", metavar="RUN_DIR", help="import all that can be, then wait for an order")
    way.add_argument("--devices", action="store_true", help="print the devices that llama.cpp sees, as JSON")
    way.add_argument("--lend", metavar="HOST:PORT", help="let other machines put models on this one's devices")
    arguments = parser.parse_args()
    if arguments.devices:
        print_devices()
    elif arguments.lend:
        lend_devices(arguments.lend)
    else:
        work(arguments.spec)


def work(spec: Path | None) -> None:
    """Be the worker of this spec; None: of the one that an order will name."""
    if path := spec or await_order():
        run(take_spec(path))


def print_devices() -> None:
    """For the registry, which never opens a device itself."""
    from worker.nvml import gpu_readings

    readings = gpu_readings()  # first: llama.cpp, to look at a GPU, takes some of its memory

    from llama_cpp import llama_cpp as ll

    from worker.engine.model.llama_devices import visible_devices
    from worker.engine.model.rpc_servers import add_rpc_devices

    ll.llama_backend_init()
    add_rpc_devices()
    told = [{**dataclasses.asdict(device), "readings": readings.get(device.bus_id)} for device in visible_devices()]
    print(json.dumps(told, default=dataclasses.asdict))


def lend_devices(address: str) -> None:
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
    """Be useful for waiting: the spec's path once the order is there; None when there will be none."""
    for name in AHEAD:
        importlib.import_module(name)
    line = sys.stdin.buffer.readline()
    if not line:
        return None  # the registry has ended
    order = read_order(line)
    obey(order)
    return Path(order.spec)


def obey(order: Order) -> None:
    """Make this process what it would be if it had been started for the order."""
    os.environ.update(order.environment)
    redirect(order.log, os.O_WRONLY | os.O_APPEND, 1, 2)
    redirect(os.devnull, os.O_RDONLY, 0)


def redirect(path: str, flags: int, *descriptors: int) -> None:
    opened = os.open(path, flags)
    for descriptor in descriptors:
        os.dup2(opened, descriptor)
    os.close(opened)


def pin_to_cores(cores: list[int]) -> None:
    """Before any thread exists, so that llama.cpp's threads inherit it."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def limit_threads() -> None:
    """Before numpy and llama.cpp are loaded, which read these at that moment.

    OpenMP's threads wait for one another in a loop. On cores that something else uses too, a long loop
    keeps away the very thread it waits for: two busy workers on the same two cores lose nine tenths of
    their speed to it. A short one costs nothing. numpy's own threads have nothing to do here.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


async def serve(spec: LaunchSpec) -> None:
    from atelier.lifecycle import stop_event
    from worker.server import WorkerServer  # llama.cpp is loaded only now, when devices and cores are fixed

    stop = stop_event()
    server = WorkerServer(spec)
    await server.start()
    await server.run(stop)


if __name__ == "__main__":
    main()
