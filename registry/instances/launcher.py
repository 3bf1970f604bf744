"""Launches workers: the boundary between what should run and where it runs."""

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
from registry.devices.pinning import within_visible, worker_environment
from registry.instances.local_worker import LocalWorker, log_path, open_log
from registry.instances.standby_worker import StandbySlot, StandbyWorker

_log = structlog.get_logger(__name__)

SOCKET = "worker-{}.sock"


class WorkerProcess(Protocol):
    """A launched worker, wherever it runs."""

    @property
    def pid(self) -> int: ...

    @property
    def started(self) -> str:
        """Distinguishes it from a later process with the same pid."""

    async def wait(self) -> int | None:
        """Return when it has ended: its exit code, or minus the signal, or None if that is unknown."""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still exists."""

    def bind(self, cores: Collection[int]) -> bool:
        """Bind it to these cores of its machine; False if that is not possible."""

    def log_tail(self) -> str:
        """The last lines that it logged."""

    def release(self) -> None:
        """Free the handle. Called once, when the process has ended or this registry stops."""


class Launcher(Protocol):
    """Places workers. Between `prepare` and `close` it may hold resources that make launches quick."""

    def prepare(self) -> None: ...

    async def close(self) -> None: ...

    def new_address(self) -> str:
        """The address on which the next worker will listen."""

    async def launch(self, spec: LaunchSpec, environment: Mapping[str, str]) -> WorkerProcess:
        """Start a worker, whose environment pins it to its devices. Raises OSError."""

    async def find(self, address: str) -> tuple[int, str] | None:
        """Pid and start time of the worker launched for this address, if the database has no record of its pid.

        None if no worker has taken the launch; then none will.
        """

    async def attach(self, instance_id: str, pid: int, started: str) -> WorkerProcess | None:
        """The worker that an earlier registry launched; None if it has ended."""

    def clear(self, address: str) -> None:
        """Remove what an ended worker left at its address."""

    def clear_all_but(self, addresses: Collection[str]) -> None:
        """Remove what workers left that ended while no registry ran; those at `addresses` are running."""


class LocalLauncher:
    """Workers as processes of this machine.

    Each has a session of its own, so that a terminal's Ctrl-C reaches only the registry, which lets its
    workers finish their requests.
    """

    def __init__(self, config: Config) -> None:
        self._run_dir = make_private(config.run_dir)
        self._logs_dir = config.logs_dir
        self._visible = {**os.environ, RPC_SERVERS: ",".join(config.rpc_servers)}
        self._standby = StandbySlot(self._run_dir, worker_environment(os.environ, {})) if config.spare_worker else None

    def prepare(self) -> None:
        if self._standby is not None:
            self._standby.refill()

    async def close(self) -> None:
        if self._standby is not None:
            await self._standby.close()

    def new_address(self) -> str:
        return f"unix:{self._run_dir / SOCKET.format(secrets.token_hex(4))}"

    async def launch(self, spec: LaunchSpec, environment: Mapping[str, str]) -> LocalWorker:
        standby = self._standby.take() if self._standby is not None else None
        return await asyncio.to_thread(self._launch, spec, environment, standby)

    async def find(self, address: str) -> tuple[int, str] | None:
        spec = Path(address.removeprefix("unix:")).with_suffix(".json")
        try:
            spec.unlink()  # a worker that has not read it yet will end without it
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
        socket.with_suffix(".json").unlink(missing_ok=True)  # left if the worker never read it
        claim_path(socket).unlink(missing_ok=True)

    def clear_all_but(self, addresses: Collection[str]) -> None:
        for path in self._run_dir.glob("worker-*"):
            if f"unix:{path.with_suffix('.sock')}" not in addresses:
                if path.suffix == ".claim":
                    _end_unknown(path)
                path.unlink(missing_ok=True)

    def _launch(self, spec: LaunchSpec, pinned: Mapping[str, str], standby: StandbyWorker | None) -> LocalWorker:
        log = log_path(self._logs_dir, spec.instance_id)
        spec_path = Path(spec.address.removeprefix("unix:")).with_suffix(".json")
        output = open_log(log)
        try:
            log_start = os.fstat(output).st_size
            write_spec(spec, spec_path)
            pinned = within_visible(self._visible, pinned)
            child = _hand_over(standby, Order(spec=str(spec_path), environment=dict(pinned), log=str(log)))
            child = child or _start(spec_path, worker_environment(os.environ, pinned), output)
        finally:
            os.close(output)
        return LocalWorker(child.pid, start_time(child.pid) or "", log, log_start, child)


def _end_unknown(claim: Path) -> None:
    """End a worker that no registry knows, and that would occupy memory forever."""
    if (taken := read_claim(claim)) is not None and start_time(taken[0]) == taken[1]:
        _log.warning("unknown_worker_ended", pid=taken[0])
        with suppress(ProcessLookupError):
            os.kill(taken[0], signal.SIGTERM)


def _hand_over(standby: StandbyWorker | None, order: Order) -> "subprocess.Popen[bytes] | None":
    """The standby worker as the ordered one; None if there is none, or it has ended."""
    try:
        return standby.become(order) if standby is not None else None
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
