"""The launches of one instance's worker: started, recorded in the database, cleaned up."""

import asyncio
import secrets
import time
from dataclasses import dataclass, replace

import structlog

from atelier.errors import LoadFailed, Unavailable
from registry.instances.device_assignment import stored_placement
from registry.instances.instance_store import InstanceStore, StoredInstance
from registry.instances.launch_plan import LaunchPlan, LaunchRules
from registry.instances.launcher import Launcher, WorkerProcess
from registry.instances.worker_client import WorkerClient
from registry.instances.worker_exit import kill_worker

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """A worker, from its launch or adoption to its exit."""

    record: StoredInstance
    process: WorkerProcess
    client: WorkerClient


class Launches:
    """Starts and cleans up the workers of one instance, one at a time; the supervisor decides when."""

    def __init__(self, rules: LaunchRules, launcher: Launcher, store: InstanceStore) -> None:
        self._rules = rules
        self._launcher = launcher
        self._store = store
        self._unwritten: StoredInstance | None = None

    def new_record(self, plan: LaunchPlan) -> StoredInstance:
        """The row of the next launch: the address on which the worker will listen, and the token it will require."""
        return StoredInstance(
            id=plan.instance_id,
            model_key=plan.model.key,
            on_demand=plan.on_demand,
            settings=plan.requested,
            presets=plan.presets.to_json(),
            ttl=plan.ttl,
            placement=stored_placement(plan),
            started_at=time.time(),
            token=secrets.token_hex(16),
            address=self._launcher.new_address(),
        )

    async def start(self, plan: LaunchPlan, record: StoredInstance, *, must_be_written: bool) -> RunningWorker:
        """Launch the worker. Raises LoadFailed, or Unavailable if a row that must be written cannot be.

        The row is written before the process is started, so that a registry that dies in between leaves a trace.
        """
        await self._write(record, required=must_be_written)
        process = await self._launch(plan, record)
        record = replace(record, pid=process.pid, pid_started=process.started)
        try:
            await self._write(record, required=False)
        except asyncio.CancelledError:
            await self._undo(record, process)
            raise
        return running_worker(record, process)

    async def retry_write(self) -> None:
        """Write a row that could not be written before; without it the next registry would not find the worker."""
        if self._unwritten is not None:
            await self._write(self._unwritten, required=False)

    async def clean_up(self, worker: RunningWorker) -> None:
        """After the worker's exit."""
        self._unwritten = None
        await worker.client.close()
        worker.process.release()
        self._launcher.clear(worker.record.address)

    async def _launch(self, plan: LaunchPlan, record: StoredInstance) -> WorkerProcess:
        spec = plan.spec(self._rules, record.address, record.token)
        launching = asyncio.create_task(self._launcher.launch(spec, plan.pin.environment))
        try:
            return await asyncio.shield(launching)
        except OSError as error:
            raise LoadFailed(f"The worker process could not be started: {error}.") from error
        except asyncio.CancelledError:
            await self._undo(record, await launching)
            raise

    async def _undo(self, record: StoredInstance, process: WorkerProcess) -> None:
        """Cancelled during a launch: without this the process would be orphaned."""
        await kill_worker(process)
        process.release()
        self._launcher.clear(record.address)

    async def _write(self, record: StoredInstance, *, required: bool) -> None:
        try:
            await self._store.save(record)
        except Unavailable:
            if required:
                raise
            if self._unwritten is None:
                _log.warning("instance_not_written", instance=record.id)
            self._unwritten = record
        else:
            self._unwritten = None


def running_worker(record: StoredInstance, process: WorkerProcess) -> RunningWorker:
    """The process with a client of its own."""
    return RunningWorker(record, process, WorkerClient(record.id, record.address, record.token))
