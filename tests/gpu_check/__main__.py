"""`python -m tests.gpu_check`: one table of what holds on this machine's NVIDIA GPU, within ten minutes.

It uses no network. The model is a GGUF file; by default the starter model, which must be installed. LLAMA_SERVER=PATH
names a llama-server with CUDA to compare with. The exit status is 0 if nothing failed, 2 if there is no GPU to check.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from registry.devices.gpu_backends import has_gpu_backend
from registry.models.split_files import read_facts
from registry.starter_model import NoStarter
from tests.bench.machine import physical_cores
from tests.bench.roster import NATIVE_VARIABLE, Native
from tests.bench.servers.contender import Settings
from tests.bench.servers.peer import Peer
from tests.gpu_check import checks
from tests.gpu_check.checks import CONTEXT, STREAMS, TOKENS, run_checks
from tests.gpu_check.gpu_memory import NoGpu, Nvml
from tests.gpu_check.subject_server import SubjectServer, server_with, tokens_per_second
from tests.gpu_check.verdicts import Row, all_passed
from tests.support.models.starter_model import starter_file

SECONDS = 540.0  # of the ten minutes; the last check that began in time is finished
NO_GPU = 2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_check", description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", help="a GGUF file (default: the starter model)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which no check begins: %(default)s")
    options = parser.parse_args()
    try:
        nvml = Nvml()
        if not has_gpu_backend():
            raise NoGpu("This llama.cpp was compiled without a GPU backend: set ATELIER_BACKEND=cuda, make setup.")
    except NoGpu as error:
        print(f"No GPU was checked. {error}", file=sys.stderr)
        return NO_GPU
    try:
        model = options.model or starter_file()
    except NoStarter as error:
        print(f"There is no model to check with: {error} Name a GGUF file.", file=sys.stderr)
        return 1
    rows = asyncio.run(checked(model, nvml, options.seconds))
    show(rows)
    return 0 if all_passed(rows) else 1


async def checked(model: Path, nvml: Nvml, seconds: float) -> list[Row]:
    gpus = nvml.read()
    layers = read_facts(model).layers + 1  # with the output
    with tempfile.TemporaryDirectory(prefix="gpu-check") as directory, server_with(model, Path(directory)) as server:
        subject = SubjectServer(server, nvml)
        peer = partial(peer_speeds, Settings(model, Path(directory), physical_cores(), max(STREAMS), CONTEXT))
        return await run_checks(
            {
                "pinning": partial(checks.pinning, subject, len(gpus)),
                "offload": partial(checks.offload, subject, layers),
                "estimate": partial(checks.estimates, subject, model, gpus),
                "batching": partial(checks.batching, subject, peer),
                "reproducible": partial(checks.reproducibility, subject),
            },
            seconds,
        )


async def peer_speeds(settings: Settings) -> Mapping[int, float] | None:
    """Of a native llama-server; None if none is named."""
    if (program := os.environ.get(NATIVE_VARIABLE)) is None:
        return None
    with Peer(Native(Path(program)), settings).started() as running:
        await tokens_per_second(running.client(), max(STREAMS), TOKENS)  # warms up
        return {streams: await tokens_per_second(running.client(), streams, TOKENS) for streams in STREAMS}


def show(rows: list[Row]) -> None:
    table = Table("Check", "Setting", "Figures", "Result")
    for row in rows:
        table.add_row(row.check, row.setting, row.figures, row.outcome.value)
    Console(width=160).print(table)


if __name__ == "__main__":
    sys.exit(main())
