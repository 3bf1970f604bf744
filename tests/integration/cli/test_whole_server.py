"""Every verb of the command line on the real services: one server with the scripted engine."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner, Result

from atelier.cli.main import app
from tests.support.command.cli_facts import STATISTICS
from tests.support.command.cli_terminal import BOUND, CTRL_C, Terminal, terminal
from tests.support.models.gguf_files import write_gguf
from tests.support.waiting import reaches

Atelier = Callable[..., Result]

KEY = "lab/tiny"


@contextmanager
def running_server(home: Path) -> Iterator[Terminal]:
    """A server with one model, on a terminal; checks at the end that no process is left."""
    write_gguf(home / "models" / "lab" / "tiny" / "tiny.gguf", name="Tiny")
    environment = {"ATELIER_ENGINE": "scripted", "ATELIER_API_KEY": ""}
    with terminal("serve", "--home", str(home), "--port", "0", environment=environment, width=200) as screen:
        screen.wait_for('"Hello!"')
        family = children_of(screen.process.pid)
        try:
            yield screen
        finally:
            family += [each for each in children_of(screen.process.pid) if each not in family]
            screen.process.terminate()
            screen.ended()
            _, alive = psutil.wait_procs(family, BOUND)
            assert alive == []


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True) if psutil.pid_exists(pid) else []


def command_for(server: Terminal) -> Atelier:
    """Runs the command in a pipe, against this server."""
    environment = {"ATELIER_URL": server.text.partition("Ready at ")[2].split()[0], "ATELIER_API_KEY": None}

    def run(*arguments: str, piped: str = "") -> Result:
        result = CliRunner().invoke(app, arguments, input=piped, env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    with running_server(tmp_path_factory.mktemp("server") / "home") as screen:
        yield screen


@pytest.fixture
def atelier(shared_server: Terminal) -> Iterator[Atelier]:
    """The command, against a server on which nothing is loaded."""
    run = command_for(shared_server)
    yield run
    assert run("unload", "--all").exit_code == 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Terminal]:
    """A server for one test, to be stopped or broken."""
    with running_server(tmp_path / "home") as screen:
        yield screen


def asked(atelier: Atelier, *arguments: str) -> Any:
    """The JSON that a verb prints."""
    result = atelier(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_model_is_listed_loaded_used_and_unloaded(atelier: Atelier) -> None:
    assert KEY in [model["key"] for model in asked(atelier, "ls")["models"]]
    assert f"Loaded {KEY} in" in atelier("load", "tiny", "-c", "512", "--parallel", "2", "--device", "cpu").stdout
    (instance,) = asked(atelier, "ps")["instances"]
    assert (instance["id"], instance["state"], instance["parallel"]) == (KEY, "ready", 2)
    assert instance["context_length"] == 512
    assert KEY in atelier("ps").stdout
    assert atelier("chat", "-p", "one two three").stdout == "one two three\n"
    assert atelier("unload").stdout == f"Unloaded {KEY}\n"
    assert asked(atelier, "ps")["instances"] == []


def test_a_chat_loads_its_model_and_shows_its_statistics(atelier: Atelier) -> None:
    answer = asked(atelier, "chat", KEY, "-p", "one two three", "--stats")
    assert answer["content"] == "one two three"
    assert list(answer["stats"]) == STATISTICS
    lines = atelier("chat", KEY, "-p", "Hi", "--stats").stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[2:]] == STATISTICS


def test_an_imported_model_can_be_used_at_once(atelier: Atelier, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "other.gguf", name="Other")
    assert asked(atelier, "import", str(path), "--key", "lab/other", "--in-place")["key"] == "lab/other"
    assert atelier("chat", "lab/other", "-p", "Hi").stdout == "Hi\n"


def test_a_second_instance_has_its_own_name(atelier: Atelier) -> None:
    assert [asked(atelier, "load", KEY)["instance_id"] for _ in range(2)] == [KEY, f"{KEY}:2"]
    assert atelier("load", KEY, "--identifier", "mine").exit_code == 0
    assert sorted(instance["id"] for instance in asked(atelier, "ps")["instances"]) == [KEY, f"{KEY}:2", "mine"]
    assert sorted(asked(atelier, "unload", "--all")["unloaded"]) == [KEY, f"{KEY}:2", "mine"]


def test_an_error_of_the_server_is_reported(atelier: Atelier) -> None:
    for call in (["load", "tinny"], ["chat", "tinny", "-p", "Hi"], ["unload", "tinny"]):
        result = atelier(*call)
        assert (result.exit_code, result.stdout, "tinny" in result.stderr) == (1, "", True), call
    assert atelier("load", KEY, "--cores", "999").exit_code == 1


def test_status_is_that_of_the_server(atelier: Atelier) -> None:
    status = asked(atelier, "status")
    assert (status["registry"], status["instances"], status["requests"]["active"]) == ("connected", 0, 0)


def test_disk_use_is_that_of_the_servers_files(atelier: Atelier) -> None:
    use = asked(atelier, "disk")
    (model,) = [each for each in use["models"] if each["key"] == KEY]
    assert model["in_library"]
    assert 0 < model["size_bytes"] <= use["library_bytes"] < use["used_bytes"]
    assert use["logs_bytes"] > 0
    assert KEY in atelier("disk").stdout


def test_ctrl_c_stops_the_workers_too(server: Terminal) -> None:
    atelier = command_for(server)
    asked(atelier, "load", KEY)
    pid = asked(atelier, "ps")["instances"][0]["pid"]
    assert psutil.pid_exists(pid)
    server.type(CTRL_C)
    assert server.ended() == 0
    assert not psutil.pid_exists(pid)


def test_a_killed_registry_is_restarted_and_the_model_keeps_running(server: Terminal) -> None:
    atelier = command_for(server)
    asked(atelier, "load", KEY)
    (before,) = asked(atelier, "ps")["instances"]
    (registry,) = [each for each in children_of(server.process.pid) if "registry" in each.cmdline()]
    os.kill(registry.pid, signal.SIGKILL)
    server.wait_for("registry was killed by SIGKILL")
    assert atelier("chat", KEY, "-p", "still here").stdout == "still here\n"
    assert reaches(lambda: asked(atelier, "status")["registry"] == "connected", BOUND)
    (after,) = asked(atelier, "ps")["instances"]
    assert after["pid"] == before["pid"]
