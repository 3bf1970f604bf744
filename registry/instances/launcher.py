"""Launches workers. The one boundary between what should run and where it runs."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import structlog

from atelier.config import Config, make_private
from atelier.launch import RPC_SERVERS, LaunchSpec, Order, claim_path, read_claim, start_time, write_spec
from registry.instances.os_process import LocalProcess
from registry.instances.standby_worker import Spare, SpareShelf
from registry.instances.worker_environment import worker_environment
from registry.instances.worker_log import last_lines, log_path, open_log
from registry.pinning import within_visible

_log = structlog.get_logger(__name__)

SOCKET = "worker-{}.sock"


class WorkerProcess(Protocol):
    """A worker that was launched, wherever it runs."""

    @property
    def pid(self) -> int: ...

    @property
    def started(self) -> str:
        """Tells it from a later process with the same pid."""

    async def wait(self) -> int | None:
        """Return when it has ended: its exit code, or minus the signal, or None where nobody knows."""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""

    def bind(self, cores: Collection[int]) -> bool:
        """Hold it to these cores of its machine; whether that could be done."""

    def last_words(self) -> str:
        """The end of what it wrote, for people."""

    def release(self) -> None:
        """Called once, when nobody watches it any more: it has ended, or this registry has."""


class Launcher(Protocol):
    """Places workers. Between `prepare` and `close` it may keep what makes launches quick."""

    def prepare(self) -> None: ...

    async def close(self) -> None: ...

    def new_address(self) -> str:
        """Where the next worker shall listen."""

    async def launch(self, spec: LaunchSpec, environment: Mapping[str, str]) -> WorkerProcess:
        """A new worker, whose environment pins it to its devices; OSError when it cannot be."""

    async def find(self, address: str) -> tuple[int, str] | None:
        """Pid and start of the worker that was launched to listen there, where nobody noted them.

        None when there is none; then there will be none either.
        """

    async def attach(self, instance_id: str, pid: int, started: str) -> WorkerProcess | None:
        """The worker that an earlier registry launched; None when it is gone."""

    def clear(self, address: str) -> None:
        """Remove what an ended worker left at its address."""

    def clear_all_but(self, addresses: Collection[str]) -> None:
        """Remove what workers left that ended while no registry ran; those at `addresses` live."""


class LocalWorker(LocalProcess):
    """A worker process of this machine, and its log."""

    def __init__(
        self, pid: int, started: str, log: Path, log_start: int = 0, child: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        super().__init__(pid, started, child)
        self._log = log
        self._log_start = log_start

    def last_words(self) -> str:
        return last_lines(self._log, self._log_start)


class LocalLauncher:
    """Workers as processes of this machine.

    Each has a session of its own: a terminal's Ctrl-C reaches the registry alone, which lets its
    workers finish before it ends them.
    """

    def __init__(self, config: Config) -> None:
        self._run_dir = make_private(config.run_dir)
        self._logs_dir = config.logs_dir
        self._visible = {**os.environ, RPC_SERVERS: ",".join(config.rpc_servers)}
        self._shelf = SpareShelf(self._run_dir, worker_environment(os.environ, {})) if config.spare_worker else None

    def prepare(self) -> None:
        if self._shelf is not None:
            self._shelf.restock()

    async def close(self) -> None:
        if self._shelf is not None:
            await self._shelf.close()

    def new_address(self) -> str:
        return f"unix:{self._run_dir / SOCKET.format(secrets.token_hex(4))}"

    async def launch(self, spec: LaunchSpec, environment: Mapping[str, str]) -> LocalWorker:
        spare = self._shelf.take() if self._shelf is not None else None
        return await asyncio.to_thread(self._launch, spec, environment, spare)

    async def find(self, address: str) -> tuple[int, str] | None:
        spec = Path(address.removeprefix("unix:")).with_suffix(".json")
        try:
            spec.unlink()  # a worker that has not read it yet will end for want of it
        except FileNotFoundError:
            return read_claim(spec)
        return None

    async def attach(self, instance_id: str, pid: int, started: str) -> LocalWorker | None:
        if start_time(pid) != started:
            return None
        return LocalWorker(pid, started, log_path(self._logs_dir, instance_id))

    def clear(self, address: str) -> None:
        socket = Path(address.removeprefix("unix:"))
        socket.unlink(missing_ok=True)
        socket.with_suffix(".json").unlink(missing_ok=True)  # there still, if the worker never read it
        claim_path(socket).unlink(missing_ok=True)

    def clear_all_but(self, addresses: Collection[str]) -> None:
        for path in self._run_dir.glob("worker-*"):
            if f"unix:{path.with_suffix('.sock')}" not in addresses:
                if path.suffix == ".claim":
                    _end_stranger(path)
                path.unlink(missing_ok=True)

    def _launch(self, spec: LaunchSpec, pinned: Mapping[str, str], spare: Spare | None) -> LocalWorker:
        log = log_path(self._logs_dir, spec.instance_id)
        spec_path = Path(spec.address.removeprefix("unix:")).with_suffix(".json")
        output = open_log(log)
        try:
            log_start = os.fstat(output).st_size
            write_spec(spec, spec_path)
            pinned = within_visible(self._visible, pinned)
            child = _employ(spare, Order(spec=str(spec_path), environment=dict(pinned), log=str(log)))
            child = child or _start(spec_path, worker_environment(os.environ, pinned), output)
        finally:
            os.close(output)
        return LocalWorker(child.pid, start_time(child.pid) or "", log, log_start, child)


def _end_stranger(claim: Path) -> None:
    """A worker that no registry knows any more: it would take memory for nobody."""
    if (taken := read_claim(claim)) is not None and start_time(taken[0]) == taken[1]:
        _log.warning("stranger_ended", pid=taken[0])
        with suppress(ProcessLookupError):
            os.kill(taken[0], signal.SIGTERM)


def _employ(spare: Spare | None, order: Order) -> "subprocess.Popen[bytes] | None":
    """The spare as this worker; None when there is none that lives."""
    try:
        return spare.become(order) if spare is not None else None
    except OSError:
        return None


def _start(spec_path: Path, environment: dict[str, str], output: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "worker", "--spec", str(spec_path)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,
    )
