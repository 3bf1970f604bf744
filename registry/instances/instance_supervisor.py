"""Keeps one instance running: launches its worker, listens to it, launches it again."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import grpc.aio
import structlog

from atelier.errors import AtelierError, LoadFailed, WorkerLost, from_message
from protos import inference_pb2 as pb
from registry.feed import Feed
from registry.instances.idleness import Use
from registry.instances.instance_record import Instance, State
from registry.instances.instance_store import InstanceRecord, InstanceStore
from registry.instances.latest_value import Latest
from registry.instances.launch_backoff import Crashes
from registry.instances.launch_plan import Plan, Rules
from registry.instances.launcher import Launcher, WorkerProcess
from registry.instances.launches import Life, Lives, adopted_life
from registry.instances.liveness import Pulse
from registry.instances.published_state import Display
from registry.instances.worker_exit import describe_ending, end_worker, ended_within, kill_worker
from registry.instances.worker_state import LOADED, judge
from registry.pinning import describe

FAILED_EXIT_SECONDS = 2.0  # for a worker whose load failed to end by itself, after SIGTERM

_log = structlog.get_logger(__name__)


class Supervisor:
    """Owns one instance: its state, its worker's process, its row in the database.

    One task runs all of it, so that nothing is decided twice:

        STARTING    launched or adopted    -> LOADING, READY: it says so
        LOADING                            -> READY: it says so, and health and description agree
        READY                              -> STALLED: silent, or busy without a step
                                           -> RESTARTING: someone else told it to end
        STALLED                            -> READY: it gets on again
        RESTARTING  its process ended      -> STARTING, after a back-off
        FAILED      its load failed, took too long, or it crashed too often; the end of the task
        STOPPING    from any state, by `stop`; the end of the task

    A process that ends leads from any state but FAILED and STOPPING to RESTARTING.
    """

    def __init__(
        self,
        plan: Plan,
        rules: Rules,
        launcher: Launcher,
        store: InstanceStore,
        feed: Feed,
        adopted: tuple[InstanceRecord, WorkerProcess] | None = None,
        make_room: Callable[[Plan], Awaitable[Plan]] | None = None,
        on_work: Callable[[], None] = lambda: None,
    ) -> None:
        """`make_room`: gives the plan its devices before the first launch; raises when there is no room.

        `on_work`: called whenever its worker begins or ends to work.
        """
        self.plan = plan
        self.asked = plan  # before devices were chosen for it
        self._make_room = make_room
        self._on_work = on_work
        self._worked = False
        self._bound: list[int] = []  # the cores that its worker was last bound to
        self.has_room = adopted is not None  # it was granted memory, or has taken it
        self._use = Use(asyncio.get_running_loop().time())
        self._rules = rules
        self._lives = Lives(plan, rules, launcher, store)
        self._crashes = Crashes(rules.restart_limit)
        self.given_up = False  # FAILED, or STOPPING after that
        self._ready_since: float | None = None
        self._devices: Sequence[str] = ()  # that its worker says it uses
        self._life = adopted_life(*adopted) if adopted else None
        self._display = Display(_as_launched(plan.new_instance(rules.host), self._life), feed)
        self._task = asyncio.create_task(self._run())
        self._stopping: asyncio.Task[None] | None = None

    @property
    def instance(self) -> Instance:
        return self._display.instance

    @property
    def state(self) -> State:
        return self._display.instance.state

    @property
    def busy(self) -> bool:
        """Whether its worker has something to do, the load included."""
        return self._life is not None and (self.state not in LOADED or self._use.busy)

    @property
    def computes(self) -> bool:
        """Whether it has a worker."""
        return self._life is not None

    def bind(self, cores: list[int]) -> None:
        """Hold its worker to these cores, if it can be held."""
        if self._life is not None and cores != self._bound and self._life.process.bind(cores):
            self._bound = cores
            self._display.note(pin=describe(self.plan.load.device, cores, self._devices))

    def idle_seconds(self, now: float) -> float:
        """0 while it works, or is not ready."""
        return self._use.idle_seconds(now) if self.state is State.READY else 0.0

    def expired(self, now: float) -> bool:
        """Whether it has been idle for as long as it may."""
        return self.state is State.READY and self._use.expired(now, self.plan.ttl)

    async def ready(self) -> Instance:
        """The instance, once it is READY; raises the error for which it will not be."""
        return await self._display.ready()

    async def answered(self) -> None:
        """Return when the worker has been heard, or is known not to be."""
        await self._display.answered.wait()

    async def stop(self, grace_seconds: float) -> None:
        """End the worker, letting it finish its calls. Who stops waiting does not stop the stopping."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(grace_seconds))
        await asyncio.shield(self._stopping)

    def kill(self) -> None:
        """End the worker's process at once; for when `stop` has taken long enough."""
        if self._life is not None:
            self._life.process.signal(signal.SIGKILL)

    async def _run(self) -> None:
        try:
            if self._make_room is not None and not self.has_room:
                self.plan = self._lives.plan = await self._make_room(self.plan)
                self._display.note(load=self.plan.load, pin=self.plan.pin.description)
            while True:
                reason = await self._live()
                await self._back_off(reason)
        except AtelierError as error:
            await self._give_up(error)
        except Exception:
            _log.exception("supervisor_failed", instance=self.plan.instance_id)
            await self._give_up(AtelierError())

    async def _live(self) -> str:
        """From the launch to the process's end; how it ended. Raises when it is to be given up."""
        life = self._life or await self._launch()
        self._life, self._ready_since = life, None
        self._note_work()
        ended = asyncio.create_task(life.process.wait())
        followed = asyncio.create_task(self._follow(life))
        try:
            await asyncio.wait((ended, followed), return_when=asyncio.FIRST_COMPLETED)
            if followed.done():
                followed.result()
            return describe_ending(await ended, life.process.last_words())
        finally:
            ended.cancel()
            followed.cancel()
            await asyncio.wait((ended, followed))
            if ended.done() and not ended.cancelled():
                await self._close_life()

    async def _launch(self) -> Life:
        record = self._lives.conceive()
        self._display.enter(
            State.STARTING,
            address=record.address,
            token=record.token,
            started_at=record.started_at,
            load_progress=0.0,
            error=None,
        )
        life = await self._lives.begin(record, must_be_written=self._crashes.in_a_row == 0)
        self._display.note(pid=life.process.pid)
        return life

    async def _follow(self, life: Life) -> None:
        """Keep the state in step with what the worker says, until it is to be given up."""
        latest: Latest[pb.WorkerStatus] = Latest()
        reading = asyncio.create_task(latest.take_from(life.client.statuses()))
        now = asyncio.get_running_loop().time()
        pulse = Pulse(self._rules.stall_timeout, now, now)
        load_by = now + self._rules.load_timeout
        try:
            while True:
                status = await latest.next(self._impatient_at(pulse, load_by))
                now = asyncio.get_running_loop().time()
                pulse = pulse.after(status, now) if status else pulse
                if now >= load_by and self.state not in LOADED:
                    raise LoadFailed(f"The model was not loaded within {self._rules.load_timeout:g} s.")
                await self._heed(life, status, pulse.stalled(now))
                if self.state is State.RESTARTING:
                    return  # it is on its way out: what matters now is its process's end
        finally:
            reading.cancel()
            await asyncio.wait((reading,))

    def _impatient_at(self, pulse: Pulse, load_by: float) -> float | None:
        """When silence means something; None when it means nothing new."""
        if self.state in LOADED:
            return pulse.stalls_at if self.state is State.READY else None
        return load_by

    async def _heed(self, life: Life, status: pb.WorkerStatus | None, stalled: bool) -> None:
        state = judge(self.state, status, stalled=stalled)
        if state is State.FAILED:
            assert status is not None
            raise from_message(status.error)
        if state is State.READY and self.state not in LOADED:
            await self._greet(life, status)
        elif state is not self.state:
            self._display.enter(state)
        if status is not None:
            await self._lives.write_again()
            self._use = self._use.after(status, asyncio.get_running_loop().time())
            self._display.note(load_progress=status.load_progress, active=status.active, queued=status.queued)
        self._note_work()

    async def _greet(self, life: Life, status: pb.WorkerStatus | None) -> None:
        """READY, if all that the worker says agrees; otherwise its next status brings us back here."""
        try:
            if not await life.client.is_serving():
                return
            description = await life.client.describe()
        except grpc.aio.AioRpcError as error:
            _log.warning("worker_does_not_answer", instance=self.plan.instance_id, reason=error.details())
            return
        self._ready_since = asyncio.get_running_loop().time()
        self._devices = description.devices
        self._use = replace(self._use, last=self._ready_since)
        self._display.enter(
            State.READY,
            load_progress=1.0,
            load_seconds=status.load_seconds if status else 0.0,
            context_length=description.context_length,
            parallel=description.parallel,
            gpu_layers=description.gpu_layers,
            pin=describe(self.plan.load.device, self._bound or self.plan.pin.cores or self._rules.cores, self._devices),
        )

    async def _back_off(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        self._crashes = self._crashes.another(now - self._ready_since if self._ready_since is not None else 0.0)
        _log.warning("worker_ended", instance=self.plan.instance_id, reason=reason, in_a_row=self._crashes.in_a_row)
        if self._crashes.too_many:
            raise LoadFailed(f"The worker {reason} ({self._crashes.in_a_row} times in a row).")
        self._display.enter(
            State.RESTARTING,
            pid=0,
            active=0,
            queued=0,
            load_progress=0.0,  # what it had is free for the moment, and its own
            error=WorkerLost(f"The worker {reason}."),
            restarts=self.instance.restarts + 1,
        )
        await asyncio.sleep(self._crashes.delay)

    async def _give_up(self, error: AtelierError) -> None:
        self.given_up = True
        _log.error("instance_failed", instance=self.plan.instance_id, reason=error.message)
        self._display.enter(State.FAILED, error=error, active=0, queued=0, pid=0)
        if self._life is not None:
            self._life.process.signal(signal.SIGTERM)
            if not await ended_within(self._life.process, FAILED_EXIT_SECONDS):
                await kill_worker(self._life.process)
            await self._close_life()

    async def _stop(self, grace_seconds: float) -> None:
        self._display.enter(State.STOPPING)
        self._task.cancel()
        await asyncio.wait((self._task,))
        if self._life is not None:
            await end_worker(self._life.process, self._life.client, grace_seconds)
            await self._close_life()

    async def _close_life(self) -> None:
        life, self._life = self._life, None
        if life is not None:
            self._bound, self._worked = [], False
            self._on_work()
            await self._lives.clear(life)

    def _note_work(self) -> None:
        if self.busy is not self._worked:
            self._worked = self.busy
            self._on_work()


def _as_launched(instance: Instance, life: Life | None) -> Instance:
    if life is None:
        return instance
    record = life.record
    return replace(
        instance, address=record.address, token=record.token, pid=life.process.pid, started_at=record.started_at
    )
