"""What the worker is doing, and what it reports to the registry."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

from atelier.errors import AtelierError, to_message
from protos import inference_pb2 as pb
from worker.engine.interface import Engine

REPORT_SECONDS = 1.0


class Activity:
    """Counts the calls in progress, of every kind. Used on the event loop alone."""

    def __init__(self) -> None:
        self.on_busy: Callable[[], None] = lambda: None  # called when the first call begins
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_end = time.monotonic()

    def begin(self) -> None:
        self._open += 1
        self._idle.clear()
        if self._open == 1:
            self.on_busy()

    def end(self) -> None:
        self._open -= 1
        self._last_end = time.monotonic()
        if self._open == 0:
            self._idle.set()

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """A call for as long as the block lasts."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    @property
    def open(self) -> int:
        return self._open

    @property
    def idle_seconds(self) -> float:
        """The time since the last call ended; 0 while one is in progress."""
        return 0.0 if self._open else time.monotonic() - self._last_end

    async def idle(self) -> None:
        """Wait until no call is in progress."""
        await self._idle.wait()


class Status:
    """The worker's state. The server changes it; every Supervise stream follows it.

    LOADING -> READY -> DRAINING, or LOADING -> FAILED.
    """

    def __init__(self, engine: Engine, activity: Activity) -> None:
        self._engine = engine
        self._activity = activity
        activity.on_busy = self._notify  # reported at once: an idle worker may be unloaded
        self._state: pb.WorkerState.ValueType = pb.WORKER_LOADING
        self._progress = 0.0
        self._load_seconds: float | None = None
        self._error: AtelierError | None = None
        self._change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._supervisors = 0
        self._ended = False
        self._last_supervised = time.monotonic()

    @property
    def state(self) -> pb.WorkerState.ValueType:
        return self._state

    @property
    def unsupervised_seconds(self) -> float:
        """The time since the last Supervise stream of a registry; 0 while there is one."""
        return 0.0 if self._supervisors else time.monotonic() - self._last_supervised

    def progress(self, fraction: float) -> None:
        self._progress = fraction
        self._notify()

    def ready(self, load_seconds: float) -> None:
        self._state, self._progress, self._load_seconds = pb.WORKER_READY, 1.0, load_seconds
        self._notify()

    def draining(self) -> None:
        self._state = pb.WORKER_DRAINING
        self._notify()

    def failed(self, error: AtelierError) -> None:
        self._state, self._error = pb.WORKER_FAILED, error
        self._notify()

    def ended(self) -> None:
        """End every Supervise stream."""
        self._ended = True
        self._notify()

    async def follow(self) -> AsyncIterator[pb.WorkerStatus]:
        """The status now, at every change, and at least once a second."""
        self._supervisors += 1
        try:
            while not self._ended:
                change = self._change  # taken before the message, so that no change during its sending is missed
                yield self._message()
                await _within(change, REPORT_SECONDS)
        finally:
            self._supervisors -= 1
            self._last_supervised = time.monotonic()

    def _notify(self) -> None:
        change, self._change = self._change, asyncio.get_running_loop().create_future()
        change.set_result(None)

    def _message(self) -> pb.WorkerStatus:
        figures = self._engine.figures()
        return pb.WorkerStatus(
            state=self._state,
            load_progress=self._progress,
            active=figures.active,
            # Calls that are not sequences, such as embeddings, are work too, but the engine does not count them.
            queued=figures.queued or (0 if figures.active else self._activity.open),
            error=to_message(self._error) if self._error else None,
            load_seconds=self._load_seconds,
            steps=figures.steps,
            cache_ram_bytes=figures.cache_used,
            cache_ram_limit_bytes=figures.cache_limit,
        )


async def _within(change: "asyncio.Future[None]", seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(change), seconds)
