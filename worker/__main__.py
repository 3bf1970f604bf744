"""`python -m worker --spec FILE`: the registry starts one for each instance."""

import argparse
import asyncio
import os
from pathlib import Path

from atelier.config import Config
from atelier.launch import LaunchSpec, take_spec
from atelier.lifecycle import stop_event
from atelier.logs import configure_logs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="the launch file that the registry wrote")
    spec = take_spec(parser.parse_args().spec)
    configure_logs(Config(), "worker", instance=spec.instance_id)
    pin_to_cores(spec.cores)
    shorten_spinning()
    asyncio.run(serve(spec))


def pin_to_cores(cores: list[int]) -> None:
    """Before any thread exists, so that llama.cpp's threads inherit it."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def shorten_spinning() -> None:
    """Before llama.cpp's OpenMP is loaded: its threads wait for one another in a loop.

    On cores that something else uses too, a long loop keeps away the very thread it waits for: two
    busy workers on the same two cores lose nine tenths of their speed to it. A short one costs nothing.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


async def serve(spec: LaunchSpec) -> None:
    from worker.server import WorkerServer  # llama.cpp is loaded only now, when devices and cores are fixed

    stop = stop_event()
    server = WorkerServer(spec)
    await server.start()
    await server.run(stop)


if __name__ == "__main__":
    main()
