"""A registry with its own home, with fake or real workers."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atelier.config import Config
from registry.hub.hub_client import Hub
from registry.instances.launcher import Launcher
from registry.server import RegistryServer, open_server
from tests.support.models.gguf_files import write_gguf
from tests.support.registry.registry_client import RegistryClient, connect
from tests.support.registry.registry_launcher import FakeLauncher

KEY = "acme/tiny"


@dataclass(frozen=True)
class Running:
    """A registry that serves, and a client of it."""

    config: Config
    server: RegistryServer
    client: RegistryClient

    @property
    def target(self) -> str:
        return self.config.registry_target


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one model, `acme/tiny`."""
    write_gguf(tmp_path / "home/models/Acme/Tiny-GGUF/Tiny.Q4_1.gguf")
    return tmp_path / "home"


@pytest.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[FakeLauncher]:
    launcher = FakeLauncher(tmp_path)
    yield launcher
    await launcher.close()


@pytest.fixture
async def start(home: Path, launcher: FakeLauncher) -> AsyncIterator[Any]:
    """`await start(stall_timeout=1, ...)`: a running registry, drained at the test's end."""
    async with AsyncExitStack() as stack:

        async def start(launcher: Launcher = launcher, hub: Hub | None = None, **settings: Any) -> Running:
            return await stack.enter_async_context(running(home, launcher, hub, **settings))

        yield start


@pytest.fixture
async def registry(start: Any) -> Running:
    started: Running = await start()
    return started


@asynccontextmanager
async def running(home: Path, launcher: Launcher, hub: Hub | None = None, **settings: Any) -> AsyncIterator[Running]:
    config = Config(home=home, engine="scripted", shutdown_grace=1, **settings)
    server = await open_server(config, launcher, hub)
    try:
        await server.start()
        token = config.registry_token.get_secret_value() if config.registry_token else None
        async with connect(config.registry_target, token) as client:
            yield Running(config, server, client)
    finally:
        await server.drain()
