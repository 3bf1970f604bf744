import json
import socket
import subprocess
import sys

import pytest

from atelier import __version__
from atelier.cli.main import VERBS, app, command_of
from tests.support.command.cli_facts import instance
from tests.support.command.cli_server import ScriptedServer
from tests.unit.cli.conftest import Atelier

STATUS = {
    "version": "0.1.0",
    "uptime_seconds": 3700.0,
    "registry": "connected",
    "models": 2,
    "instances": 1,
    "requests": {"active": 3, "waiting": 4},
}


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("ATELIER_URL", url)
    return url


def test_help_lists_every_verb(atelier: Atelier) -> None:
    output = atelier("--help").stdout
    assert all(f"  {name} " in output and verb.help in output for name, verb in VERBS.items())


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_its_own_help(atelier: Atelier, name: str) -> None:
    result = atelier(name, "--help")
    assert (result.exit_code, VERBS[name].help in result.stdout) == (0, True)
    assert command_of(name).name == name


def test_an_unknown_verb_is_a_usage_error_with_a_near_name(atelier: Atelier) -> None:
    result = atelier("lsp")
    assert (result.exit_code, "Did you mean" in result.stderr) == (2, True)


@pytest.mark.parametrize("call", [["ls"], ["ps"], ["status"], ["unload", "x"], ["chat", "-p", "x"], ["load", "x"]])
def test_without_a_server_each_verb_says_how_to_start_one(no_server: str, atelier: Atelier, call: list[str]) -> None:
    result = atelier(*call)
    assert result.exit_code == 1
    assert result.stderr == f"atelier: No server at {no_server}: start one with: atelier serve\n"


def test_the_key_in_the_environment_is_sent(
    server: ScriptedServer, atelier: Atelier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_API_KEY", "secret")
    server.answers("GET /api/v1/status", STATUS)
    atelier("status")
    assert server.received[0].headers["Authorization"] == "Bearer secret"


def test_a_missing_key_says_where_to_put_it(server: ScriptedServer, atelier: Atelier) -> None:
    server.refuses("GET /api/v1/status", 401, "Wrong key.")
    assert atelier("status").stderr == "atelier: Wrong key. Set ATELIER_API_KEY to the server's key.\n"


def test_status_shows_the_state_of_the_server(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/status", STATUS)
    server.answers(
        "GET /api/v1/instances", {"instances": [instance("a"), instance("b"), instance("c", state="failed")]}
    )
    assert atelier("status").stdout.splitlines() == [
        f"LM Atelier 0.1.0 at {server.url}, up for 1 h 1 min",
        "registry  connected",
        "models    2",
        "instances 2 ready, 1 failed",
        "requests  3 active, 4 waiting",
    ]
    assert json.loads(atelier("status", "--json").stdout) == STATUS


def test_status_of_an_idle_server_shows_zero_counts(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/status", STATUS)
    server.answers("GET /api/v1/instances", {"instances": []})
    assert "instances none" in atelier("status").stdout


def test_version_is_the_packages(atelier: Atelier) -> None:
    assert atelier("version").stdout == f"atelier {__version__}\n"
    assert app.info.no_args_is_help


@pytest.mark.parametrize("call", ["app(['--help'])", "app(['ls'])"])
def test_a_quick_verb_imports_no_server(call: str, no_server: str) -> None:
    heavy = "grpc", "fastapi", "llama_cpp", "sqlalchemy", "numpy", "pydantic_settings"
    program = f"""
import sys
from atelier.cli.main import app
try: {call}
except SystemExit: pass
sys.stderr.write(" ".join(name for name in {heavy} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stderr.rpartition("\n")[2] == ""
