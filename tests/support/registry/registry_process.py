"""`python -m registry` as a separate process, for tests that kill it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from atelier.config import Config
from tests.support.registry.registry_client import SECONDS, RegistryClient, connect

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class RegistryProcess:
    """A running registry and a client of it."""

    process: asyncio.subprocess.Process
    client: RegistryClient

    async def end(self, number: signal.Signals) -> int:
        """Send the signal and wait; the exit code."""
        self.process.send_signal(number)
        async with asyncio.timeout(SECONDS):
            return await self.process.wait()


async def launch_registry(home: Path, *options: str, **settings: object) -> asyncio.subprocess.Process:
    """The process alone, its standard input and error open to the test."""
    environment = {**os.environ, "ATELIER_HOME": str(home), "ATELIER_ENGINE": "scripted", "ATELIER_LOG_FORMAT": "json"}
    environment["ATELIER_SPARE_WORKER"] = "off"  # tested with the launcher
    environment |= {f"ATELIER_{name.upper()}": str(value) for name, value in settings.items()}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "registry", *options),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd=ROOT,
    )


@asynccontextmanager
async def registry_process(
    home: Path, address: str, *options: str, **settings: object
) -> AsyncIterator[RegistryProcess]:
    """A registry that answers at `address`; it is always ended after the test."""
    process = await launch_registry(home, *options, **settings)
    assert process.stderr is not None
    reading = asyncio.create_task(_discard(process.stderr))
    try:
        async with connect(address) as client:
            yield RegistryProcess(process, client)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await reading


def workers_of(home: Path) -> list[psutil.Process]:
    """The running worker processes of this home, including those of other launchers."""
    run_dir = str(Config(home=home).run_dir)
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = process.info["cmdline"] or []
        if "worker" in line and any(run_dir in word for word in line) and process.info["status"] != "zombie":
            found.append(process)
    return found


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.read(65_536):
        pass
