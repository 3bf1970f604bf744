from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from atelier.cli.main import app
from tests.support.command.cli_server import ScriptedServer, scripted_server

Atelier = Callable[..., Result]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A scripted server that the verbs connect to."""
    with scripted_server() as script:
        monkeypatch.setenv("ATELIER_URL", script.url)
        monkeypatch.delenv("ATELIER_API_KEY", raising=False)
        yield script


@pytest.fixture
def atelier() -> Atelier:
    """Runs the command in a pipe: `atelier("ls", "--json", piped="...")`."""

    def run(*arguments: str, piped: str = "") -> Result:
        return CliRunner().invoke(app, arguments, input=piped)

    return run
