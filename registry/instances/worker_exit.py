"""How a worker's process is ended, how its exit is described, and when it is launched again after a crash."""

import asyncio
import signal
from dataclasses import dataclass

from atelier.backoff import backoff_delay
from registry.instances.launcher import WorkerProcess
from registry.instances.worker_client import WorkerClient

AFTER_GRACE_SECONDS = 3.0  # to free the model, once the running calls have finished
TERMINATE_SECONDS = 5.0  # between SIGTERM and SIGKILL
FIRST_DELAY = 0.1  # seconds before a crashed worker is launched again, doubled up to the longest
LONGEST_DELAY = 30.0
HEALTHY_SECONDS = 60.0  # of being ready, after which the crash count starts over


@dataclass(frozen=True, slots=True)
class CrashCount:
    """The crashes in a row of one instance's workers, and how many are tolerated."""

    limit: int
    in_a_row: int = 0

    def after_crash(self, ready_seconds: float) -> "CrashCount":
        """`ready_seconds`: for how long the worker that crashed had been ready."""
        before = 0 if ready_seconds >= HEALTHY_SECONDS else self.in_a_row
        return CrashCount(self.limit, before + 1)

    @property
    def too_many(self) -> bool:
        return self.in_a_row > self.limit

    @property
    def delay(self) -> float:
        """Seconds to wait before the next launch."""
        return backoff_delay(self.in_a_row, FIRST_DELAY, LONGEST_DELAY)


async def end_worker(process: WorkerProcess, client: WorkerClient, grace_seconds: float) -> None:
    """Ask the worker to finish its calls within the grace period; then terminate it, and at last kill it."""
    if await client.shut_down(grace_seconds) and await ended_within(process, grace_seconds + AFTER_GRACE_SECONDS):
        return
    await terminate_worker(process, TERMINATE_SECONDS)


async def terminate_worker(process: WorkerProcess, seconds: float) -> None:
    """Send SIGTERM, and SIGKILL if the process has not ended within so many seconds."""
    process.signal(signal.SIGTERM)
    if not await ended_within(process, seconds):
        await kill_worker(process)


async def kill_worker(process: WorkerProcess) -> None:
    process.signal(signal.SIGKILL)
    await process.wait()


async def ended_within(process: WorkerProcess, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        return False
    return True


def describe_exit(exit_code: int | None, log_tail: str) -> str:
    """Human-readable: "was killed by SIGKILL", "ended with exit code 3", then the end of the log."""
    if exit_code is None:
        how = "ended"
    elif exit_code < 0:
        how = f"was killed by {_signal_name(-exit_code)}"
    else:
        how = f"ended with exit code {exit_code}"
    return f"{how}; its log ends: {log_tail}" if log_tail else how


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
