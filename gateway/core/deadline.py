"""How long a request may take, from its head to its answer's end; and how long a worker may let it wait."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from atelier.errors import DeadlineExceeded
from protos import inference_pb2 as pb

MARGIN_SECONDS = 1.0  # a worker that works says itself that the time is up


@dataclass(frozen=True, slots=True)
class Deadline:
    """One request's. `end` is on the monotonic clock; None: as long as it takes."""

    end: float | None = None
    queue_seconds: float | None = None  # that a worker may let it wait for its turn

    def tell(self, submit: pb.Submit) -> None:
        """Durations, not times: the worker's clock may be another machine's."""
        if self.end is not None:
            submit.timeout_seconds = max(0.0, self.end - time.monotonic())
        if self.queue_seconds is not None:
            submit.queue_timeout_seconds = self.queue_seconds

    @asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """What takes longer in here ends with DeadlineExceeded."""
        try:
            async with asyncio.timeout(self._left(0.0)) as bounds:
                yield
        except TimeoutError:
            if bounds.expired():
                raise overdue() from None
            raise

    def watch(self, fail: Callable[[DeadlineExceeded], None]) -> asyncio.TimerHandle | None:
        """Have `fail` called if no worker has ended the request in time; cancel it with the request."""
        left = self._left(MARGIN_SECONDS)
        return None if left is None else asyncio.get_running_loop().call_later(left, lambda: fail(overdue()))

    def _left(self, margin: float) -> float | None:
        return None if self.end is None else max(0.0, self.end + margin - time.monotonic())


def overdue() -> DeadlineExceeded:
    return DeadlineExceeded("The request's timeout passed.", param="timeout")
