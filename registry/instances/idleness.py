"""Since when an instance has had nothing to do, and whether that is long enough to unload it: pure."""

from dataclasses import dataclass, replace

from protos.inference_pb2 import WorkerStatus


@dataclass(frozen=True, slots=True)
class Use:
    """Of one worker. Times are of one monotonic clock, in seconds."""

    last: float  # when it last had work
    steps: int = 0
    busy: bool = False

    def after(self, status: WorkerStatus, now: float) -> "Use":
        """A call may have come and gone between two statuses: its steps tell."""
        busy = bool(status.active or status.queued)
        worked = busy or status.steps != self.steps
        return replace(self, last=now if worked else self.last, steps=status.steps, busy=busy)

    def idle_seconds(self, now: float) -> float:
        """0 while it works."""
        return 0.0 if self.busy else max(0.0, now - self.last)

    def expired(self, now: float, ttl: float | None) -> bool:
        """Whether it has been idle for `ttl` seconds; None: it stays for ever."""
        return ttl is not None and not self.busy and now - self.last >= ttl
