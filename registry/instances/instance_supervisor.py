"""Keeps one instance running: has it admitted, launches its worker, launches it again after a crash."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from atelier.errors import AtelierError, LoadFailed, WorkerLost
from registry.feed import Feed
from registry.instances.instance_record import Instance, InstanceState
from registry.instances.instance_store import InstanceStore
from registry.instances.launch_plan import LaunchPlan, LaunchRules
from registry.instances.launcher import Launcher
from registry.instances.launches import Launches, RunningWorker
from registry.instances.published_state import PublishedState
from registry.instances.worker_exit import CrashCount, describe_exit, end_worker, terminate_worker
from registry.instances.worker_monitor import WorkerMonitor

FAILED_EXIT_SECONDS = 2.0  # between SIGTERM and SIGKILL, for a worker whose load failed

_log = structlog.get_logger(__name__)


class Supervisor:
    """Owns one instance: its state, its worker's process, its row in the database.

    One task does all of it, so that no two decisions conflict:

        STARTING    launched or adopted    -> LOADING, READY: the worker reports it
        LOADING                            -> READY: reported, and health check and description agree
        READY                              -> STALLED: no status, or work without a step
                                           -> RESTARTING: someone else asked the worker to shut down
        STALLED                            -> READY: it makes progress again
        RESTARTING  its process ended      -> STARTING, after a back-off
        FAILED      its load failed or timed out, or it crashed too often; the end of the task
        STOPPING    from any state, by `stop`; the end of the task

    From any state but FAILED and STOPPING, the end of the process leads to RESTARTING.
    """

    def __init__(
        self,
        rules: LaunchRules,
        launcher: Launcher,
        store: InstanceStore,
        feed: Feed,
        admit: Callable[[LaunchPlan], Awaitable[LaunchPlan]],
        on_work: Callable[[], None],
        plan: LaunchPlan,
        adopted: RunningWorker | None,
    ) -> None:
        """`admit` returns the plan with its devices, before the first launch; it raises if memory is insufficient.

        `on_work` is called whenever the worker starts or stops working.
        """
        self.plan = plan
        self.asked = plan  # before devices were chosen for it
        self.admitted = adopted is not None  # it was granted memory, or uses it already
        self.given_up = False  # FAILED, or STOPPING after that
        self._admit = admit
        self._launches = Launches(rules, launcher, store)
        self._crashes = CrashCount(rules.restart_limit)
        self._published = PublishedState(_as_adopted(plan.new_instance(rules.host), adopted), feed)
        self.worker = WorkerMonitor(plan, rules, self._published, self._launches, on_work, adopted)
        self._task = asyncio.create_task(self._run())
        self._stopping: asyncio.Task[None] | None = None

    @property
    def instance(self) -> Instance:
        return self._published.instance

    @property
    def state(self) -> InstanceState:
        return self._published.state

    async def ready(self) -> Instance:
        """The instance once it is READY; raises the error that prevents it."""
        return await self._published.ready()

    async def reported(self) -> None:
        """Return once the worker has reported its state, or is known not to."""
        await self._published.reported.wait()

    async def stop(self, grace_seconds: float) -> None:
        """End the worker after its running calls. Cancelling the caller does not cancel the stop."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(grace_seconds))
        await asyncio.shield(self._stopping)

    def kill(self) -> None:
        """Kill the worker's process at once, if `stop` takes too long."""
        if self.worker.running is not None:
            self.worker.running.process.signal(signal.SIGKILL)

    async def _run(self) -> None:
        try:
            if not self.admitted:
                self.plan = self.worker.plan = await self._admit(self.plan)
                self._published.note(load=self.plan.load, pin=self.plan.pin.description)
            while True:
                reason = await self._run_worker()
                await self._back_off(reason)
        except AtelierError as error:
            await self._give_up(error)
        except Exception:
            _log.exception("supervisor_failed", instance=self.plan.instance_id)
            await self._give_up(AtelierError())

    async def _run_worker(self) -> str:
        """From the launch to the process's end; how it ended. Raises the error for which the instance fails."""
        worker = self.worker.running or await self._launch()
        self.worker.begin(worker)
        ended = asyncio.create_task(worker.process.wait())
        followed = asyncio.create_task(self.worker.follow(worker))
        try:
            await asyncio.wait((ended, followed), return_when=asyncio.FIRST_COMPLETED)
            if followed.done():
                followed.result()
            return describe_exit(await ended, worker.process.log_tail())
        finally:
            ended.cancel()
            followed.cancel()
            await asyncio.wait((ended, followed))
            if ended.done() and not ended.cancelled():
                await self._clean_up()

    async def _launch(self) -> RunningWorker:
        record = self._launches.new_record(self.plan)
        self._published.enter(
            InstanceState.STARTING,
            address=record.address,
            token=record.token,
            started_at=record.started_at,
            load_progress=0.0,
            error=None,
        )
        worker = await self._launches.start(self.plan, record, must_be_written=self._crashes.in_a_row == 0)
        self._published.note(pid=worker.process.pid)
        return worker

    async def _back_off(self, reason: str) -> None:
        now, ready_since = asyncio.get_running_loop().time(), self.worker.ready_since
        self._crashes = self._crashes.after_crash(now - ready_since if ready_since is not None else 0.0)
        _log.warning("worker_ended", instance=self.plan.instance_id, reason=reason, in_a_row=self._crashes.in_a_row)
        if self._crashes.too_many:
            raise LoadFailed(f"The worker {reason} ({self._crashes.in_a_row} times in a row).")
        self._published.enter(
            InstanceState.RESTARTING,
            pid=0,
            active=0,
            queued=0,
            load_progress=0.0,  # its memory is free for the moment, and still reserved for it
            error=WorkerLost(f"The worker {reason}."),
            restarts=self.instance.restarts + 1,
        )
        await asyncio.sleep(self._crashes.delay)

    async def _give_up(self, error: AtelierError) -> None:
        self.given_up = True
        _log.error("instance_failed", instance=self.plan.instance_id, reason=error.message)
        self._published.enter(InstanceState.FAILED, error=error, active=0, queued=0, pid=0)
        if self.worker.running is not None:
            await terminate_worker(self.worker.running.process, FAILED_EXIT_SECONDS)
            await self._clean_up()

    async def _stop(self, grace_seconds: float) -> None:
        self._published.enter(InstanceState.STOPPING)
        self._task.cancel()
        await asyncio.wait((self._task,))
        if (worker := self.worker.running) is not None:
            await end_worker(worker.process, worker.client, grace_seconds)
            await self._clean_up()

    async def _clean_up(self) -> None:
        if (worker := self.worker.end()) is not None:
            await self._launches.clean_up(worker)


def _as_adopted(instance: Instance, worker: RunningWorker | None) -> Instance:
    if worker is None:
        return instance
    record, pid = worker.record, worker.process.pid
    return replace(instance, address=record.address, token=record.token, pid=pid, started_at=record.started_at)
