"""This project's server, as a user starts it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from tests.bench.servers.contender import Ask, Running, Settings
from tests.bench.servers.model_copy import copy_of
from tests.support.command.server_process import serving


class Ours:
    """Its own defaults are the settings of all: 8 sequences of 4096 tokens, a thread a physical core."""

    name = "ours"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @contextmanager
    def started(self) -> Iterator[Running]:
        home = self._settings.directory / "home"
        model = self._settings.model
        copy_of(model, home / "models" / "bench" / model.stem / model.name)
        with serving(home) as server:
            port = urlsplit(server.url).port
            assert port is not None
            yield Running(self.name, server.process.pid, port, only_model(server.url))

    @contextmanager
    def embedding(self, running: Running) -> Iterator[Running]:
        yield running

    async def load_cold(self, running: Running, ask: Ask) -> float:
        """The server runs; the request finds its model unloaded and has it loaded."""
        unload_all(f"http://127.0.0.1:{running.port}")
        started = time.monotonic()
        trace = await ask(running.client())
        return float(trace.first - started)


def only_model(url: str) -> str:
    """The id of the one model that the server has found."""
    (model,) = httpx.get(f"{url}/v1/models", timeout=60).raise_for_status().json()["data"]
    return str(model["id"])


def unload_all(url: str) -> None:
    for instance in httpx.get(f"{url}/api/v1/instances", timeout=10).raise_for_status().json()["instances"]:
        body = {"instance_id": instance["id"]}
        httpx.post(f"{url}/api/v1/models/unload", json=body, timeout=60).raise_for_status()
