"""One launch of an instance's worker after the other: begun, written down, cleared away."""

import asyncio
import secrets
import time
from dataclasses import dataclass, replace

import structlog

from atelier.errors import LoadFailed, Unavailable
from atelier.launch import LaunchSpec
from registry.instances.device_assignment import placement_of
from registry.instances.instance_store import InstanceRecord, InstanceStore
from registry.instances.launch_plan import Plan, Rules
from registry.instances.launcher import Launcher, WorkerProcess
from registry.instances.worker_client import WorkerClient
from registry.instances.worker_exit import kill_worker

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Life:
    """A worker, from its launch, or adoption, to its end."""

    record: InstanceRecord
    process: WorkerProcess
    client: WorkerClient


class Lives:
    """Begins and clears away the lives of one instance; its supervisor decides when."""

    def __init__(self, plan: Plan, rules: Rules, launcher: Launcher, store: InstanceStore) -> None:
        self.plan = plan
        self._rules = rules
        self._launcher = launcher
        self._store = store
        self._unwritten: InstanceRecord | None = None

    def conceive(self) -> InstanceRecord:
        """Where the next worker will listen, and the token it will ask for."""
        return InstanceRecord(
            id=self.plan.instance_id,
            model_key=self.plan.model.key,
            on_demand=self.plan.on_demand,
            settings=self.plan.requested,
            presets=self.plan.presets.to_json(),
            ttl=self.plan.ttl,
            placement=placement_of(self.plan),
            started_at=time.time(),
            token=secrets.token_hex(16),
            address=self._launcher.new_address(),
        )

    async def begin(self, record: InstanceRecord, *, must_be_written: bool) -> Life:
        """Launch the worker. Unavailable when its row must, but cannot, be written; LoadFailed.

        The row is there before the process, so that a registry that dies in between leaves a trace.
        """
        await self._write(record, required=must_be_written)
        process = await self._launch(record)
        record = replace(record, pid=process.pid, pid_started=process.started)
        try:
            await self._write(record, required=False)
        except asyncio.CancelledError:
            await self._undo(record, process)
            raise
        return adopted_life(record, process)

    async def write_again(self) -> None:
        """Try to note what could not be noted; without, the next registry would not find the worker."""
        if self._unwritten is not None:
            await self._write(self._unwritten, required=False)

    async def clear(self, life: Life) -> None:
        """After the worker's end."""
        self._unwritten = None
        await life.client.close()
        life.process.release()
        self._launcher.clear(life.record.address)

    async def _launch(self, record: InstanceRecord) -> WorkerProcess:
        launching = asyncio.create_task(self._launcher.launch(self._spec(record), self.plan.pin.environment))
        try:
            return await asyncio.shield(launching)
        except OSError as error:
            raise LoadFailed(f"A worker could not be started: {error}.") from error
        except asyncio.CancelledError:
            await self._undo(record, await launching)
            raise

    async def _undo(self, record: InstanceRecord, process: WorkerProcess) -> None:
        """Told to stop in the middle of a launch: the process must not be lost."""
        await kill_worker(process)
        process.release()
        self._launcher.clear(record.address)

    def _spec(self, record: InstanceRecord) -> LaunchSpec:
        return self.plan.spec(self._rules, record.address, record.token)

    async def _write(self, record: InstanceRecord, *, required: bool) -> None:
        try:
            await self._store.save(record)
        except Unavailable:
            if required:
                raise
            if self._unwritten is None:
                _log.warning("instance_not_remembered", instance=record.id)
            self._unwritten = record
        else:
            self._unwritten = None


def adopted_life(record: InstanceRecord, process: WorkerProcess) -> Life:
    """The life of a process that runs already."""
    return Life(record, process, WorkerClient(record.id, record.address, record.token))
