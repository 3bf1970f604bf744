"""A service as a child process: restarted when it crashes, stopped gracefully."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from atelier.backoff import backoff_delay
from atelier.cli.output import Failure
from atelier.cli.service_log import last_line

LONGEST_DELAY = 30.0  # seconds
CRASHES_TOO_MANY = 5
WINDOW = 60.0  # seconds; the crash count resets after a run of this length

Say = Callable[[str], None]


class Crashes:
    """Decides when a crashed process may restart: after 1, 2, 4, ... 30 seconds."""

    def __init__(self, first_delay: float = 1.0) -> None:
        self._first_delay = first_delay
        self._in_a_row: list[float] = []

    def delay_after(self, now: float, ran_for: float) -> float | None:
        """Seconds to wait after a crash at `now`; None after five crashes within a minute."""
        if ran_for > WINDOW:
            self._in_a_row.clear()
        self._in_a_row.append(now)
        if sum(now - crash < WINDOW for crash in self._in_a_row) >= CRASHES_TOO_MANY:
            return None
        return backoff_delay(len(self._in_a_row), self._first_delay, LONGEST_DELAY)


class Child:
    """One service. The task that runs `keep_running` owns it: cancel the task, then call `stop`.

        running --process exits--> waiting --delay passes--> running
           |                          '--crashed too often--> Failure
           '--keep_running cancelled--> left running --stop--> ended

    It runs in its own session, so that the terminal's Ctrl-C does not reach it. It reads from a pipe that only
    this process holds open: it ends when this process does, even if that is killed.
    """

    def __init__(
        self, name: str, environment: Mapping[str, str], log: Path, say: Say, first_delay: float = 1.0
    ) -> None:
        self.name, self.log = name, log
        self._first_delay = first_delay
        self._environment, self._say = environment, say
        self._process: asyncio.subprocess.Process | None = None

    async def keep_running(self) -> None:
        """Start the process, and restart it after each crash. Raises Failure when it crashes too often."""
        crashes = Crashes(self._first_delay)
        while True:
            started = time.monotonic()
            ending = _ending(await self._run_once())
            now = time.monotonic()
            delay = crashes.delay_after(now, now - started)
            reason = f"{self.name} {ending}: {last_line(self.log) or 'it logged nothing'}"
            if delay is None:
                raise Failure(f"{reason}\nIt crashed {CRASHES_TOO_MANY} times in a minute. See its log: {self.log}")
            self._say(f"{reason}. Restarting it in {delay:.0f} s.")
            await asyncio.sleep(delay)

    async def _run_once(self) -> int:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self.name, "--exit-with-parent"),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        return await self._process.wait()

    async def stop(self, grace: float, kill: asyncio.Event) -> None:
        """Send SIGTERM; kill the process after `grace` seconds, or as soon as `kill` is set."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        if not await _ends_within(process, grace, kill):
            self._say(f"{self.name} did not stop in time and is killed.")
            with suppress(ProcessLookupError, PermissionError):  # it has just ended; macOS raises PermissionError then
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _ends_within(process: asyncio.subprocess.Process, grace: float, kill: asyncio.Event) -> bool:
    waits = {asyncio.ensure_future(process.wait()), asyncio.ensure_future(kill.wait())}
    _, pending = await asyncio.wait(waits, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
    for wait in pending:
        wait.cancel()
    return process.returncode is not None


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
