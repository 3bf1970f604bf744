"""The real model, downloaded once per machine; a worker that runs it, and a server."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from atelier.launch import LaunchSpec
from atelier.settings import Load
from tests.support.command.server_process import Server, put_starter, serving
from tests.support.models.starter_model import starter_file
from tests.support.worker.worker_client import WorkerClient
from tests.support.worker.worker_process import worker_process


@pytest.fixture(scope="session")
def starter_model() -> Path:
    """The starter model's file: SmolLM2-135M-Instruct, Q4_1."""
    return starter_file()


@pytest.fixture
def home(tmp_path: Path, starter_model: Path) -> Path:
    """A separate home with the starter model."""
    put_starter(tmp_path / "home", starter_model)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> Iterator[Server]:
    """One server for the tests of a module, which must restore its state."""
    home = tmp_path_factory.mktemp("server") / "home"
    put_starter(home, starter_model)
    with serving(home) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spec(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LaunchSpec]:
    """One worker process for the tests of a module."""
    directory = tmp_path_factory.mktemp("worker")
    async with worker_process(directory, starter_model, Load(context_length=1024, reproducible=True)) as launched:
        yield launched


@pytest_asyncio.fixture(loop_scope="module")
async def client(spec: LaunchSpec) -> AsyncIterator[WorkerClient]:
    """A gateway's side of a stream to that worker."""
    async with WorkerClient(spec) as connected:
        yield connected
