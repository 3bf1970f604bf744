"""Children of `serve`, with stand-ins for the services: real processes that live a few milliseconds."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from atelier.cli.children import Child
from atelier.cli.output import Failure
from atelier.cli.readiness import until
from atelier.cli.service_log import show_warnings

BOUND = 20.0  # seconds

CRASHES_ONCE = """
import pathlib, sys
been = pathlib.Path(__file__).with_name("been")
if not been.exists():
    been.touch()
    sys.exit("no luck")
print("second life", flush=True)
sys.stdin.read()
"""
CRASHES = "import sys; sys.exit('always the same')"
RUNS = "import sys; print('up', flush=True); sys.stdin.read()"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


class Standin:
    """A child with a given program, its messages, and its log."""

    def __init__(self, directory: Path, program: str) -> None:
        (directory / "standin.py").write_text(program)
        self.said: list[str] = []
        self.log = directory / "standin.log"
        self.log.touch()
        environment = {**os.environ, "PYTHONPATH": str(directory)}
        self.child = Child("standin", environment, self.log, self.said.append, first_delay=0.001)

    async def logged(self, text: str) -> None:
        async def has_logged() -> bool:
            # A busy machine may run the program before the child knows that it was started.
            return self.child._process is not None and text in self.log.read_text()

        await asyncio.wait_for(until(has_logged), BOUND)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = {process.pid for process in psutil.Process().children()}
    yield
    assert [process for process in psutil.Process().children() if process.pid not in before] == []


async def stopped(keeping: asyncio.Task[None], standin: Standin, grace: float, kill: bool = False) -> None:
    keeping.cancel()
    event = asyncio.Event()
    if kill:
        event.set()
    async with asyncio.timeout(BOUND):
        await asyncio.gather(keeping, return_exceptions=True)
        await standin.child.stop(grace, event)


async def test_a_crashed_service_starts_again(tmp_path: Path) -> None:
    standin = Standin(tmp_path, CRASHES_ONCE)
    keeping = asyncio.create_task(standin.child.keep_running())
    await standin.logged("second life")
    assert standin.said == ["standin ended with exit code 1: no luck. Restarting it in 0 s."]
    await stopped(keeping, standin, grace=BOUND)


async def test_a_service_that_always_crashes_is_given_up(tmp_path: Path) -> None:
    standin = Standin(tmp_path, CRASHES)
    with pytest.raises(Failure, match=r"always the same\nIt crashed 5 times in a minute. See its log: .*standin.log"):
        await asyncio.wait_for(standin.child.keep_running(), BOUND)
    assert len(standin.said) == 4


async def test_a_service_that_ends_when_asked_is_not_killed(tmp_path: Path) -> None:
    standin = Standin(tmp_path, RUNS)
    keeping = asyncio.create_task(standin.child.keep_running())
    await standin.logged("up")
    await stopped(keeping, standin, grace=BOUND)
    assert standin.said == []


@pytest.mark.parametrize(("grace", "kill"), [(0.05, False), (BOUND, True)])
async def test_a_service_that_does_not_end_is_killed(tmp_path: Path, grace: float, kill: bool) -> None:
    standin = Standin(tmp_path, DEAF)
    keeping = asyncio.create_task(standin.child.keep_running())
    await standin.logged("up")
    await stopped(keeping, standin, grace, kill)
    assert standin.said == ["standin did not stop in time and is killed."]


async def test_a_service_that_ends_before_it_is_killed_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killpg = os.killpg

    def too_late(group: int, number: int) -> None:
        killpg(group, number)
        raise ProcessLookupError

    monkeypatch.setattr("atelier.cli.children.os.killpg", too_late)
    standin = Standin(tmp_path, DEAF)
    keeping = asyncio.create_task(standin.child.keep_running())
    await standin.logged("up")
    await stopped(keeping, standin, grace=0.05)


async def test_a_service_runs_in_its_own_session(tmp_path: Path) -> None:
    standin = Standin(
        tmp_path, "import os, sys; print('session', os.getsid(0) == os.getpid(), flush=True); sys.stdin.read()"
    )
    keeping = asyncio.create_task(standin.child.keep_running())
    await standin.logged("session True")
    await stopped(keeping, standin, grace=BOUND)


async def test_warnings_are_reported_when_they_are_logged(tmp_path: Path) -> None:
    log, said, shown = tmp_path / "gateway.log", list[str](), asyncio.Event()
    log.write_text('{"event": "old", "level": "error"}\n')

    def say(text: str) -> None:
        said.append(text)
        shown.set()

    telling = asyncio.create_task(show_warnings("gateway", log, say))
    await asyncio.sleep(0)
    with log.open("a") as file:
        file.write('{"event": "fine", "level": "info"}\n{"event": "stalled", "level": "war')
        file.flush()
        await asyncio.sleep(0)
        file.write('ning", "worker": 7}\n')
    async with asyncio.timeout(BOUND):
        await shown.wait()
        shown.clear()
        log.write_text('{"event": "x", "level": "error"}\n')  # as logrotate does with copytruncate
        await shown.wait()
    telling.cancel()
    assert said == ["gateway: stalled worker=7", "gateway: x"]
