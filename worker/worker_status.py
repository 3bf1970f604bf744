"""What the worker says of itself to the registry, and whether a registry listens."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from atelier.errors import AtelierError, to_message
from protos import inference_pb2 as pb
from worker.activity import Activity
from worker.engine.interface import Engine

PULSE_SECONDS = 1.0


class Status:
    """The worker's state. The server changes it; every Supervise stream follows it.

    LOADING -> READY -> DRAINING, or LOADING -> FAILED.
    """

    def __init__(self, engine: Engine, activity: Activity) -> None:
        self._engine = engine
        self._activity = activity
        activity.on_busy = self._notify  # at once: an idle worker may be unloaded
        self._state: pb.WorkerState.ValueType = pb.WORKER_LOADING
        self._progress = 0.0
        self._load_seconds: float | None = None
        self._error: AtelierError | None = None
        self._change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listeners = 0
        self._ended = False
        self._last_listener = time.monotonic()

    @property
    def state(self) -> pb.WorkerState.ValueType:
        return self._state

    @property
    def unsupervised_seconds(self) -> float:
        """Since a registry last held a Supervise stream; 0 while one does."""
        return 0.0 if self._listeners else time.monotonic() - self._last_listener

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
        """Every Supervise stream ends after this."""
        self._ended = True
        self._notify()

    async def follow(self) -> AsyncIterator[pb.WorkerStatus]:
        """The status now, at every change, and at least once a second."""
        self._listeners += 1
        try:
            while not self._ended:
                change = self._change  # before the message: what changes while it is sent is not missed
                yield self._message()
                await _within(change, PULSE_SECONDS)
        finally:
            self._listeners -= 1
            self._last_listener = time.monotonic()

    def _notify(self) -> None:
        change, self._change = self._change, asyncio.get_running_loop().create_future()
        change.set_result(None)

    def _message(self) -> pb.WorkerStatus:
        figures = self._engine.figures()
        return pb.WorkerStatus(
            state=self._state,
            load_progress=self._progress,
            active=figures.active,
            # Calls that are no sequences, such as embeddings, are work as well; they are not told apart by steps.
            queued=figures.queued or (0 if figures.active else self._activity.open),
            error=to_message(self._error) if self._error else None,
            load_seconds=self._load_seconds,
            steps=figures.steps,
        )


async def _within(change: "asyncio.Future[None]", seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(change), seconds)
