"""Follows the worker of one instance: its statuses move the published state, its work the shares of cores."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import grpc.aio
import structlog

from atelier.errors import LoadFailed, from_message
from protos import inference_pb2 as pb
from registry.devices.pinning import describe
from registry.instances.instance_record import InstanceState
from registry.instances.launch_plan import LaunchPlan, LaunchRules
from registry.instances.launches import Launches, RunningWorker
from registry.instances.published_state import PublishedState
from registry.instances.worker_state import LOADED, Idleness, Liveness, next_state

_log = structlog.get_logger(__name__)


class WorkerMonitor:
    """Owns what is known of an instance's present worker: its activity, its devices, the cores it is bound to.

    Without a worker (`running` is None) an instance is between two launches. Driven by the supervisor's task.
    """

    def __init__(
        self,
        plan: LaunchPlan,
        rules: LaunchRules,
        published: PublishedState,
        launches: Launches,
        on_work: Callable[[], None],
        running: RunningWorker | None,
    ) -> None:
        """`on_work` is called whenever the worker starts or stops working. `running`: adopted, not launched."""
        self.plan = plan
        self.running = running
        self.ready_since: float | None = None
        self._rules = rules
        self._published = published
        self._launches = launches
        self._on_work = on_work
        self._worked = False
        self._bound: list[int] = []  # the cores that it was last bound to
        self._devices: Sequence[str] = ()  # that it reports to use
        self._idleness = Idleness(asyncio.get_running_loop().time())

    @property
    def busy(self) -> bool:
        """Whether it has work; loading counts as work."""
        return self.running is not None and (self._published.state not in LOADED or self._idleness.busy)

    def idle_seconds(self, now: float) -> float:
        """0 while it works, or is not ready."""
        return self._idleness.idle_seconds(now) if self._published.state is InstanceState.READY else 0.0

    def expired(self, now: float) -> bool:
        """Whether it has been idle for as long as its plan allows."""
        return self._published.state is InstanceState.READY and self._idleness.expired(now, self.plan.ttl)

    def bind(self, cores: list[int]) -> None:
        """Bind it to these cores, if its system can."""
        if self.running is not None and cores != self._bound and self.running.process.bind(cores):
            self._bound = cores
            self._published.note(pin=describe(self.plan.load.device, cores, self._devices))

    async def release_cache(self, size: int) -> None:
        """Ask it to free so many bytes of saved prefixes. One that does not answer frees nothing."""
        if self.running is not None:
            try:
                freed = await self.running.client.release_cache(size)
                _log.info("cache_released", instance=self.plan.instance_id, requested=size, released=freed)
            except grpc.aio.AioRpcError as error:
                _log.warning("cache_not_released", instance=self.plan.instance_id, reason=error.details())

    def begin(self, worker: RunningWorker) -> None:
        self.running, self.ready_since = worker, None
        self._note_work()

    def end(self) -> RunningWorker | None:
        """The worker that has ended; None if that was noted before."""
        worker, self.running = self.running, None
        if worker is not None:
            self._bound, self._worked = [], False
            self._on_work()
        return worker

    async def follow(self, worker: RunningWorker) -> None:
        """Keep the state in step with the worker's statuses; return once it drains.

        Raises the error of its load, LoadFailed if that takes too long.
        """
        latest = _LatestStatus()
        reading = asyncio.create_task(latest.read(worker.client.statuses()))
        now = asyncio.get_running_loop().time()
        liveness = Liveness(self._rules.stall_timeout, now, now)
        load_deadline = now + self._rules.load_timeout
        try:
            while True:
                status = await latest.next(self._deadline(liveness, load_deadline))
                now = asyncio.get_running_loop().time()
                liveness = liveness.after(status, now) if status else liveness
                if now >= load_deadline and self._published.state not in LOADED:
                    raise LoadFailed(f"The model was not loaded within {self._rules.load_timeout:g} s.")
                await self._apply(worker, status, stalled=liveness.stalled(now))
                if self._published.state is InstanceState.RESTARTING:
                    return  # it is shutting down: only its process's end matters now
        finally:
            reading.cancel()
            await asyncio.wait((reading,))

    def _deadline(self, liveness: Liveness, load_deadline: float) -> float | None:
        """When the absence of a status changes the state; None if it cannot."""
        if self._published.state in LOADED:
            return liveness.stalls_at if self._published.state is InstanceState.READY else None
        return load_deadline

    async def _apply(self, worker: RunningWorker, status: pb.WorkerStatus | None, *, stalled: bool) -> None:
        state = next_state(self._published.state, status, stalled=stalled)
        if state is InstanceState.FAILED:
            assert status is not None
            raise from_message(status.error)
        if state is InstanceState.READY and self._published.state not in LOADED:
            await self._confirm_ready(worker, status)
        elif state is not self._published.state:
            self._published.enter(state)
        if status is not None:
            await self._launches.retry_write()
            self._idleness = self._idleness.after(status, asyncio.get_running_loop().time())
            self._published.note(
                load_progress=status.load_progress,
                active=status.active,
                queued=status.queued,
                cache_ram_bytes=status.cache_ram_bytes,
                cache_ram_limit_bytes=status.cache_ram_limit_bytes,
            )
        self._note_work()

    async def _confirm_ready(self, worker: RunningWorker, status: pb.WorkerStatus | None) -> None:
        """Enter READY if health check and description agree; otherwise the next status leads here again."""
        try:
            if not await worker.client.is_serving():
                return
            description = await worker.client.describe()
        except grpc.aio.AioRpcError as error:
            _log.warning("worker_not_responding", instance=self.plan.instance_id, reason=error.details())
            return
        self.ready_since = asyncio.get_running_loop().time()
        self._devices = description.devices
        self._idleness = replace(self._idleness, last_work=self.ready_since)
        cores = self._bound or self.plan.pin.cores or self._rules.cores
        self._published.enter(
            InstanceState.READY,
            load=replace(self.plan.load, speculation=description.load.speculation),
            load_progress=1.0,
            load_seconds=status.load_seconds if status else 0.0,
            context_length=description.context_length,
            parallel=description.parallel,
            gpu_layers=description.gpu_layers,
            pin=describe(self.plan.load.device, cores, self._devices),
        )

    def _note_work(self) -> None:
        if self.busy is not self._worked:
            self._worked = self.busy
            self._on_work()


class _LatestStatus:
    """The newest status not read yet. A slow reader misses some, so that no queue grows."""

    def __init__(self) -> None:
        self._status: pb.WorkerStatus | None = None
        self._new = asyncio.Event()

    async def read(self, statuses: AsyncIterator[pb.WorkerStatus]) -> None:
        async for status in statuses:
            self._status = status
            self._new.set()

    async def next(self, until: float | None) -> pb.WorkerStatus | None:
        """None if none arrived until that time of the event loop."""
        try:
            async with asyncio.timeout_at(until):
                await self._new.wait()
        except TimeoutError:
            return None
        self._new.clear()
        return self._status
