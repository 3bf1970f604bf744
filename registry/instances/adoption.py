"""After a restart of the registry: surviving workers are adopted, other instances launched again or dropped."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

import structlog

from atelier.errors import AtelierError
from registry.instances.instance_loader import InstanceLoader
from registry.instances.instance_store import InstanceStore, StoredInstance
from registry.instances.instance_supervisor import Supervisor
from registry.instances.launcher import Launcher, WorkerProcess
from registry.instances.worker_client import WorkerClient
from registry.instances.worker_exit import end_worker

REPORT_SECONDS = 3.0  # that startup waits for adopted workers, so that the first snapshot has their true state

_log = structlog.get_logger(__name__)


async def adopt_instances(
    records: Iterable[StoredInstance], loader: InstanceLoader, launcher: Launcher, store: InstanceStore
) -> None:
    """Continue every instance of the earlier registry. A record that fails affects no other."""
    adopted = [await _adopt(record, loader, launcher, store) for record in records]
    waits = [asyncio.create_task(supervisor.reported()) for supervisor in adopted if supervisor]
    if waits:
        _, silent = await asyncio.wait(waits, timeout=REPORT_SECONDS)
        for wait in silent:
            wait.cancel()


async def _adopt(
    record: StoredInstance, loader: InstanceLoader, launcher: Launcher, store: InstanceStore
) -> Supervisor | None:
    """The supervisor of the surviving worker; None if the instance was launched again or dropped."""
    if record.pid is None:  # the registry died between the launch and writing its pid
        record = await _with_pid(record, launcher, store)
    process = await _worker_of(record, launcher)
    try:
        if process is not None:
            _log.info("instance_adopted", instance=record.id, pid=process.pid)
            return await loader.resume(record, process)
        if not record.on_demand:
            _log.info("instance_relaunched", instance=record.id)
            await loader.resume(record, None)
            return None
    except AtelierError as error:
        _log.warning("instance_dropped", instance=record.id, reason=error.message)
    await _drop(record, process, launcher, store)
    return None


async def _worker_of(record: StoredInstance, launcher: Launcher) -> WorkerProcess | None:
    if record.pid is None or record.pid_started is None:
        return None
    return await launcher.attach(record.id, record.pid, record.pid_started)


async def _with_pid(record: StoredInstance, launcher: Launcher, store: InstanceStore) -> StoredInstance:
    """With the pid of the worker that took the launch, if one did."""
    if (found := await launcher.find(record.address)) is None:
        return record
    record = replace(record, pid=found[0], pid_started=found[1])
    with suppress(AtelierError):
        await store.save(record)
    return record


async def _drop(
    record: StoredInstance, process: WorkerProcess | None, launcher: Launcher, store: InstanceStore
) -> None:
    if process is not None:
        client = WorkerClient(record.id, record.address, record.token)
        await end_worker(process, client, 0)
        await client.close()
        process.release()
    launcher.clear(record.address)
    with suppress(AtelierError):
        await store.remove(record.id)
