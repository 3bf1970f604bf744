"""`atelier serve` on a real terminal, with stand-ins for the services."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.command.cli_standins import BROKEN, DEAF, LOUD, standin_environment
from tests.support.command.cli_terminal import BOUND, CTRL_C, Terminal, terminal
from tests.support.waiting import reaches

KEY = "sk-a-key-of-clients"
Serve = Callable[..., AbstractContextManager[Terminal]]


class Home:
    """The server's home, with the logs of its services."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self, service: str, event: str) -> list[dict[str, Any]]:
        lines = (self.path / "logs" / f"{service}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if f'"event": "{event}"' in line]

    def pid(self, service: str) -> int:
        return int(self.records(service, "started")[-1]["pid"])

    def alive(self) -> list[int]:
        started = [record["pid"] for name in ("registry", "gateway") for record in self.records(name, "started")]
        return [pid for pid in started if psutil.pid_exists(pid)]

    def wait_until(self, happened: Callable[[], bool]) -> None:
        assert reaches(happened, BOUND)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    home.wait_until(lambda: home.alive() == [])


@pytest.fixture
def serve(home: Home, tmp_path: Path) -> Serve:
    def start(*options: str, gateway: str = "", **variables: str) -> AbstractContextManager[Terminal]:
        environment = {**standin_environment(tmp_path), "STANDIN_GATEWAY": gateway, **variables}
        return terminal("serve", "--home", str(home.path), "--port", "0", *options, environment=environment, width=200)

    return start


def test_serve_prints_its_address_and_ctrl_c_stops_it(serve: Serve, home: Home) -> None:
    with serve() as screen:
        screen.wait_for('"model": "lab/tiny"')
        assert "Ready at http://127.0.0.1:" in screen.text
        assert str(home.path) in screen.text
        screen.type(CTRL_C)
        assert screen.ended() == 0
        assert screen.text.splitlines()[-1] == "Stopped."
    assert home.alive() == []
    assert home.records("gateway", "stopping")
    assert home.records("registry", "stopping")


def test_sigterm_stops_the_server(serve: Serve, home: Home) -> None:
    with serve() as screen:
        screen.wait_for("Ready at")
        screen.process.terminate()
        assert screen.ended() == 0
    assert home.alive() == []


def test_ctrl_c_before_the_server_is_ready_stops_it_too(serve: Serve, home: Home) -> None:
    with serve() as screen:
        home.wait_until((home.path / "logs" / "registry.log").exists)
        screen.type(CTRL_C)
        assert screen.ended() == 0


def test_killing_serve_ends_its_services(serve: Serve, home: Home) -> None:
    with serve() as screen:
        screen.wait_for("Ready at")
        screen.process.kill()
        screen.ended()
        home.wait_until(lambda: home.alive() == [])


def test_a_killed_gateway_is_restarted_and_the_registry_keeps_running(serve: Serve, home: Home) -> None:
    with serve() as screen:
        screen.wait_for("Ready at")
        registry = home.pid("registry")
        os.kill(home.pid("gateway"), signal.SIGKILL)
        screen.wait_for("gateway was killed by SIGKILL")
        screen.wait_for("Restarting it in 1 s.")
        home.wait_until(lambda: len(home.records("gateway", "started")) == 2)
        assert home.pid("registry") == registry
        screen.type(CTRL_C)
        assert screen.ended() == 0


def test_a_second_ctrl_c_does_not_wait(serve: Serve, home: Home) -> None:
    with serve("--shutdown-grace", "600", gateway=DEAF) as screen:
        screen.wait_for("Ready at")
        screen.type(CTRL_C)
        screen.wait_for("Stopping.")
        home.wait_until(lambda: bool(home.records("gateway", "deaf")))
        screen.type(CTRL_C)
        assert screen.ended() == 0
    assert home.alive() == []
    assert home.records("registry", "stopping")


def test_a_third_ctrl_c_kills_what_is_left(serve: Serve, home: Home) -> None:
    with serve("--shutdown-grace", "600", gateway=DEAF, STANDIN_REGISTRY=DEAF) as screen:
        screen.wait_for("Ready at")
        screen.type(CTRL_C)
        screen.wait_for("Stopping.")
        screen.type(CTRL_C)
        home.wait_until(lambda: bool(home.records("registry", "deaf")))
        screen.type(CTRL_C)
        assert screen.ended() == 0
    assert home.alive() == []


def test_a_service_that_cannot_run_ends_the_server(serve: Serve, home: Home) -> None:
    with serve(gateway=BROKEN) as screen:
        screen.wait_for("gateway ended with exit code 1: the gateway is broken")
        screen.type(CTRL_C)
        assert screen.ended() == 0


def test_secrets_reach_only_the_services_that_need_them(serve: Serve, home: Home) -> None:
    with serve(ATELIER_API_KEY=KEY) as screen:
        screen.wait_for("Ready at")
        (registry,), (gateway,) = home.records("registry", "started"), home.records("gateway", "started")
        assert (registry["has_key"], gateway["has_key"]) == (False, True)
        assert registry["token"] == gateway["token"]
        commands = [" ".join(psutil.Process(pid).cmdline()) for pid in home.alive()]
        assert not any(KEY in command or registry["token"] in command for command in commands)
        screen.type(CTRL_C)
        assert screen.ended() == 0
    assert KEY not in screen.text


def test_warnings_of_the_services_are_reported(serve: Serve, home: Home) -> None:
    with serve(STANDIN_REGISTRY=LOUD) as screen:
        screen.wait_for("registry: worker_stalled instance=lab/tiny")
        screen.type(CTRL_C)
        assert screen.ended() == 0


def test_a_second_server_in_the_same_home_is_rejected(serve: Serve, home: Home) -> None:
    with serve() as screen:
        screen.wait_for("Ready at")
        with serve() as second:
            assert second.ended() == 1
            assert "runs already" in second.text
        screen.type(CTRL_C)
        assert screen.ended() == 0


def test_the_first_line_appears_at_once_and_readiness_soon(serve: Serve, home: Home) -> None:
    began = time.monotonic()
    with serve() as screen:
        screen.wait_for("is starting")
        first = time.monotonic() - began
        screen.wait_for("Ready at")
        ready = time.monotonic() - began
        url = screen.text.partition("Ready at ")[2].split()[0]
        assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        screen.type(CTRL_C)
        assert screen.ended() == 0
    print(f"first line after {first:.2f} s, ready after {ready:.2f} s")
    assert (first < 5, ready < 10) == (True, True)  # loose, for machines under load
