"""A worker process started ahead: its libraries are imported, and it waits to be told what to run.

Half of the time between a request for a model and its first token would otherwise go into imports.
"""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog

from atelier.launch import Order, order_line

RESTOCK_SECONDS = 3.0  # after a launch, whose load wants the cores for itself

_log = structlog.get_logger(__name__)


class Spare:
    """One process that waits. It ends when its standard input is closed: with the registry, however that ends."""

    def __init__(self, run_dir: Path, environment: Mapping[str, str]) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "worker", "--spare", str(run_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # its log is the model's, once it has one
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,
        )

    def become(self, order: Order) -> "subprocess.Popen[bytes]":
        """Make it the worker that the order describes; OSError when it has ended meanwhile."""
        if self._child.poll() is not None:
            self.dismiss()
            raise BrokenPipeError("the spare worker has ended")
        assert self._child.stdin is not None
        with self._child.stdin as order_pipe:
            order_pipe.write(order_line(order))
        return self._child

    def dismiss(self) -> None:
        """Let it end, and wait for that."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()


class SpareShelf:
    """Holds at most one spare. Owned by the launcher; used on the event loop."""

    def __init__(self, run_dir: Path, environment: Mapping[str, str]) -> None:
        self._run_dir = run_dir
        self._environment = environment
        self._spare: Spare | None = None
        self._restocking: asyncio.Task[None] | None = None

    def restock(self, delay: float = 0.0) -> None:
        """Put a spare there after the delay, unless there is one."""
        if self._restocking is None or self._restocking.done():
            self._restocking = asyncio.create_task(self._restock(delay))

    def take(self) -> Spare | None:
        """The spare, which is the caller's then; another will be put in its place."""
        spare, self._spare = self._spare, None
        self.restock(RESTOCK_SECONDS)
        return spare

    async def close(self) -> None:
        if self._restocking is not None:
            self._restocking.cancel()
            await asyncio.wait([self._restocking])
        spare, self._spare = self._spare, None
        if spare is not None:
            await asyncio.to_thread(spare.dismiss)

    async def _restock(self, delay: float) -> None:
        await asyncio.sleep(delay)
        if self._spare is None:
            try:
                self._spare = Spare(self._run_dir, self._environment)
            except OSError as error:
                _log.warning("no_spare_worker", reason=str(error))
