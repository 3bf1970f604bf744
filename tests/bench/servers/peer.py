"""A peer: one process, with the model loaded from its start."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import httpx
import psutil

from atelier.json_types import Json
from tests.bench.outcomes import NoFigures
from tests.bench.process_tree import ended_with_its_children
from tests.bench.servers.contender import START_SECONDS, Ask, Running, Settings
from tests.bench.servers.model_copy import copy_of

POLL_SECONDS = 0.02
LOG_LINES = 5


class Kind(Protocol):
    """What differs between peers."""

    name: str

    def command(self, settings: Settings, model: Path, port: int, *, embeddings: bool) -> list[str]: ...

    def adapt(self, body: Json) -> Json: ...


class Peer:
    def __init__(self, kind: Kind, settings: Settings) -> None:
        self._kind = kind
        self._settings = settings
        self.name = kind.name

    @contextmanager
    def started(self) -> Iterator[Running]:
        with self._launched() as running:
            self._wait_ready(running)
            yield running

    @contextmanager
    def embedding(self, running: Running) -> Iterator[Running]:
        with self._launched(embeddings=True) as second:
            self._wait_ready(second)
            yield second

    async def load_cold(self, running: Running, ask: Ask) -> float:
        """A second process of the same server, started on entry; the first stays idle."""
        started = time.monotonic()
        with self._launched() as second:
            while True:
                try:
                    trace = await ask(second.client())
                    return float(trace.first - started)
                except (OSError, NoFigures):  # not listening, or still loading
                    self._check_alive(second)
                    await asyncio.sleep(POLL_SECONDS)

    @contextmanager
    def _launched(self, *, embeddings: bool = False) -> Iterator[Running]:
        port = free_port()
        model = copy_of(self._settings.model, self._settings.directory / self.name / self._settings.model.name)
        command = self._kind.command(self._settings, model, port, embeddings=embeddings)
        with self._log.open("wb") as log:
            # Launchers end when their standard input does, so that a killed measurement leaves none behind.
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
        try:
            with ended_with_its_children(process.pid):
                yield Running(self.name, process.pid, port, model.stem, self._kind.adapt)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(1)

    @property
    def _log(self) -> Path:
        return self._settings.directory / f"{self.name}.log"

    def _wait_ready(self, running: Running) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self._check_alive(running)
            try:
                if httpx.get(f"http://127.0.0.1:{running.port}/v1/models", timeout=10).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(POLL_SECONDS)
        raise NoFigures(f"{self.name} was not ready after {START_SECONDS:.0f} s")

    def _check_alive(self, running: Running) -> None:
        if psutil.Process(running.pid).status() == psutil.STATUS_ZOMBIE:
            said = " | ".join(self._log.read_text(errors="replace").splitlines()[-LOG_LINES:])
            raise RuntimeError(f"{self.name} ended: {said}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
