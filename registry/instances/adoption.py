"""After a restart: the workers that live on are taken up, the others replaced or forgotten."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

import structlog

from atelier.errors import AtelierError
from registry.instances.instance_pool import Pool
from registry.instances.instance_store import InstanceRecord, InstanceStore
from registry.instances.instance_supervisor import Supervisor
from registry.instances.launcher import Launcher, WorkerProcess
from registry.instances.worker_client import WorkerClient
from registry.instances.worker_exit import end_worker

FIRST_WORD_SECONDS = 3.0  # that startup waits for adopted workers, so that the first snapshot shows them as they are

_log = structlog.get_logger(__name__)


async def adopt_instances(
    records: Iterable[InstanceRecord], pool: Pool, launcher: Launcher, store: InstanceStore
) -> None:
    """Take up every instance of the earlier registry. No record can fail the others."""
    taken_up = [await _adopt(record, pool, launcher, store) for record in records]
    waits = [asyncio.create_task(supervisor.answered()) for supervisor in taken_up if supervisor]
    if waits:
        _, silent = await asyncio.wait(waits, timeout=FIRST_WORD_SECONDS)
        for wait in silent:
            wait.cancel()


async def _adopt(record: InstanceRecord, pool: Pool, launcher: Launcher, store: InstanceStore) -> Supervisor | None:
    """The supervisor of the worker that lives on; None when it was replaced or forgotten."""
    if record.pid is None:  # the registry died between the launch and the note of its pid
        record = await _noted(record, launcher, store)
    process = await _worker_of(record, launcher)
    try:
        if process is not None:
            _log.info("instance_adopted", instance=record.id, pid=process.pid)
            return await pool.resume(record, process)
        if not record.on_demand:
            _log.info("instance_relaunched", instance=record.id)
            await pool.resume(record, None)
            return None
    except AtelierError as error:
        _log.warning("instance_dropped", instance=record.id, reason=error.message)
    await _forget(record, process, launcher, store)
    return None


async def _worker_of(record: InstanceRecord, launcher: Launcher) -> WorkerProcess | None:
    if record.pid is None or record.pid_started is None:
        return None
    return await launcher.attach(record.id, record.pid, record.pid_started)


async def _noted(record: InstanceRecord, launcher: Launcher, store: InstanceStore) -> InstanceRecord:
    """With the pid of the worker that took the launch, if one did."""
    if (found := await launcher.find(record.address)) is None:
        return record
    record = replace(record, pid=found[0], pid_started=found[1])
    with suppress(AtelierError):
        await store.save(record)
    return record


async def _forget(
    record: InstanceRecord, process: WorkerProcess | None, launcher: Launcher, store: InstanceStore
) -> None:
    if process is not None:
        client = WorkerClient(record.id, record.address, record.token)
        await end_worker(process, client, 0)
        await client.close()
        process.release()
    launcher.clear(record.address)
    with suppress(AtelierError):
        await store.remove(record.id)
