"""A worker process started in advance: its libraries are imported, and it waits for a model to serve.

Imports would otherwise take half of the time between a request for a model and its first token.
"""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog

from atelier.launch import Order, order_line

REFILL_SECONDS = 3.0  # after a launch, whose load needs the cores

_log = structlog.get_logger(__name__)


class StandbyWorker:
    """One waiting process. It ends when its standard input is closed, hence also when the registry dies."""

    def __init__(self, run_dir: Path, environment: Mapping[str, str]) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "worker", "--spare", str(run_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # it logs to its instance's file once it has an instance
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,
        )

    def become(self, order: Order) -> "subprocess.Popen[bytes]":
        """Make it the worker that the order describes; OSError if it has ended meanwhile."""
        if self._child.poll() is not None:
            self.dismiss()
            raise BrokenPipeError("the standby worker has ended")
        assert self._child.stdin is not None
        with self._child.stdin as order_pipe:
            order_pipe.write(order_line(order))
        return self._child

    def dismiss(self) -> None:
        """End it, and wait for its exit."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()


class StandbySlot:
    """At most one standby worker. Owned by the launcher; used on the event loop."""

    def __init__(self, run_dir: Path, environment: Mapping[str, str]) -> None:
        self._run_dir = run_dir
        self._environment = environment
        self._worker: StandbyWorker | None = None
        self._refilling: asyncio.Task[None] | None = None

    def refill(self, delay: float = 0.0) -> None:
        """Start a standby worker after the delay, unless there is one by then."""
        if self._refilling is None or self._refilling.done():
            self._refilling = asyncio.create_task(self._refill(delay))

    def take(self) -> StandbyWorker | None:
        """Hand the standby worker over to the caller, and replace it later."""
        worker, self._worker = self._worker, None
        self.refill(REFILL_SECONDS)
        return worker

    async def close(self) -> None:
        if self._refilling is not None:
            self._refilling.cancel()
            await asyncio.wait([self._refilling])
        worker, self._worker = self._worker, None
        if worker is not None:
            await asyncio.to_thread(worker.dismiss)

    async def _refill(self, delay: float) -> None:
        await asyncio.sleep(delay)
        if self._worker is None:
            try:
                self._worker = StandbyWorker(self._run_dir, self._environment)
            except OSError as error:
                _log.warning("standby_worker_not_started", reason=str(error))
