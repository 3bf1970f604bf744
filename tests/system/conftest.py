"""The real model, fetched once a machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server_process import Server, put_starter, serving
from tests.support.starter_model import starter_file


@pytest.fixture(scope="session")
def starter_model() -> Path:
    """The starter model's file: SmolLM2-135M-Instruct, Q4_1."""
    return starter_file()


@pytest.fixture
def home(tmp_path: Path, starter_model: Path) -> Path:
    """A home of its own that has the starter model."""
    put_starter(tmp_path / "home", starter_model)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> Iterator[Server]:
    """One server for the tests of a module; they leave it as they found it."""
    home = tmp_path_factory.mktemp("server") / "home"
    put_starter(home, starter_model)
    with serving(home) as running:
        yield running
