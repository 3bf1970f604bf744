"""The registry killed at random moments of a random workload: every acknowledged write survives.

ATELIER_TEST_KILLS sets how often; the default keeps the tests short.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from atelier.config import Config
from atelier.errors import AtelierError
from protos import registry_pb2 as pb
from tests.integration.registry.conftest import KEY
from tests.support.models.gguf_files import write_gguf
from tests.support.registry.registry_client import RegistryClient, View
from tests.support.registry.registry_process import registry_process, workers_of

KILLS = int(os.environ.get("ATELIER_TEST_KILLS", "6"))
CLIENTS = 3
LONGEST_LIFE = 0.6  # seconds between a registry's first answer and its end
SETTLE_SECONDS = 40.0


@pytest.fixture(autouse=True)
async def no_worker_stays(home: Path) -> AsyncIterator[None]:
    yield
    for process in await asyncio.to_thread(workers_of, home):
        process.kill()


class Truth:
    """The expected state. A write that was not acknowledged may have happened or not."""

    def __init__(self) -> None:
        self.allowed: dict[tuple[str, str], set[Any]] = {}

    async def write(self, kind: str, name: str, value: Any, act: Callable[[], Awaitable[Any]]) -> None:
        entry = self.allowed.setdefault((kind, name), {None})
        entry.add(value)
        await act()
        self.allowed[kind, name] = {value}

    def check(self, view: View) -> None:
        """Compare, and remember the present state."""
        for (kind, name), allowed in self.allowed.items():
            actual = ACTUAL[kind](view, name)
            assert actual in allowed, f"{kind} {name} is {actual!r}, not one of {allowed}"
            self.allowed[kind, name] = {actual}


ACTUAL: dict[str, Callable[[View, str], Any]] = {
    "instance": lambda view, name: True if name in view.instances else None,
    "preset": lambda view, name: view.presets[name].settings_json if name in view.presets else None,
    "model": lambda view, name: True if name in view.models else None,
    "default": lambda view, name: view.models[name].default_preset or None,
}


class Client:
    """Writes only its own entries, so that it knows the expected result."""

    def __init__(self, number: int, truth: Truth, folder: Path) -> None:
        self._number = number
        self._truth = truth
        self._folder = folder
        self._random = random.Random(number)
        self._count = 0

    async def work(self, client: RegistryClient) -> None:
        """Until the registry is gone."""
        while True:
            try:
                await self._random.choice((self._instance, self._preset, self._model))(client)
            except (AtelierError, grpc.aio.AioRpcError, asyncio.CancelledError):
                return

    async def _instance(self, client: RegistryClient) -> None:
        name = f"client-{self._number}"
        if self._truth.allowed.get(("instance", name)) == {True}:
            await self._truth.write("instance", name, None, lambda: client.unload(name))
        else:
            await self._truth.write("instance", name, True, lambda: client.create(KEY, name))

    async def _preset(self, client: RegistryClient) -> None:
        self._count += 1
        name, settings = f"preset {self._number}", {"inference": {"top_k": self._count}}
        written = f'{{"inference":{{"top_k":{self._count}}}}}'.encode()
        await self._truth.write("preset", name, written, lambda: client.put_preset(name, **settings))
        if self._number == 0:
            await self._truth.write("default", KEY, name, lambda: client.set_default_preset(KEY, name))

    async def _model(self, client: RegistryClient) -> None:
        self._count += 1
        key = f"client/{self._number}-{self._count}"
        path = write_gguf(self._folder / f"{self._number}-{self._count}.gguf")
        await self._truth.write("model", key, True, lambda: client.import_model(path, key))


async def settled(home: Path, view: View) -> None:
    """Every instance is ready with exactly one worker, and there is no other."""

    def ready(view: View) -> bool:
        return all(instance.state == pb.READY for instance in view.instances.values())

    await view.until(ready)
    end = asyncio.get_running_loop().time() + SETTLE_SECONDS
    while True:
        lives = {process.pid: process.cmdline() for process in await asyncio.to_thread(workers_of, home)}
        known = {instance.pid: instance.id for instance in view.instances.values()}
        if lives.keys() == known.keys():
            return
        assert asyncio.get_running_loop().time() < end, f"workers {lives}, instances {known}"
        await asyncio.sleep(0.05)


@pytest.mark.timeout(60 + 20 * KILLS)
async def test_every_acknowledged_write_survives_a_kill(home: Path, tmp_path: Path) -> None:
    address, truth, chance = Config(home=home).registry_target, Truth(), random.Random(7)
    clients = [Client(number, truth, tmp_path / "files") for number in range(CLIENTS)]
    for _ in range(KILLS):
        async with registry_process(home, address) as registry:
            async with registry.client.watch() as view:
                truth.check(view)
                await settled(home, view)
            working = [asyncio.create_task(client.work(registry.client)) for client in clients]
            await asyncio.wait(working, timeout=chance.uniform(0.0, LONGEST_LIFE))
            await registry.end(signal.SIGKILL)
            for task in working:
                task.cancel()
            await asyncio.wait(working)
    async with registry_process(home, address) as registry:
        async with registry.client.watch() as view:
            truth.check(view)
            await settled(home, view)
        await registry.end(signal.SIGTERM)
    assert await asyncio.to_thread(workers_of, home) == []
    assert len(truth.allowed) > CLIENTS
