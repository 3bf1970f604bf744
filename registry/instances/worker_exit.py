"""How a worker's process is ended, and how its end is told to people."""

import asyncio
import signal

from registry.instances.launcher import WorkerProcess
from registry.instances.worker_client import WorkerClient

AFTER_GRACE_SECONDS = 3.0  # to free the model, when the running calls are finished
TERMINATE_SECONDS = 5.0  # between SIGTERM and SIGKILL


async def end_worker(process: WorkerProcess, client: WorkerClient, grace_seconds: float) -> None:
    """Let it finish its calls within the grace period; then end it, whether it likes it or not."""
    if await client.shut_down(grace_seconds) and await ended_within(process, grace_seconds + AFTER_GRACE_SECONDS):
        return
    process.signal(signal.SIGTERM)
    if not await ended_within(process, TERMINATE_SECONDS):
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


def describe_ending(exit_code: int | None, last_words: str) -> str:
    """For people: "was killed by SIGKILL", "ended with exit code 3", with the end of the log."""
    if exit_code is None:
        how = "ended"
    elif exit_code < 0:
        how = f"was killed by {_signal_name(-exit_code)}"
    else:
        how = f"ended with exit code {exit_code}"
    return f"{how}; its last words: {last_words}" if last_words else how


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
