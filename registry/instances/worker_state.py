"""What a worker's status messages say over time: its instance's state, whether it stalls, since when it is idle. Pure.

Times are seconds of one monotonic clock.
"""

from dataclasses import dataclass, replace

from protos import inference_pb2 as pb
from registry.instances.instance_record import InstanceState

LOADED = (InstanceState.READY, InstanceState.STALLED)


def next_state(state: InstanceState, status: pb.WorkerStatus | None, *, stalled: bool) -> InstanceState:
    """The state after this status, or after none arrived in time (`status` is None)."""
    if status is not None and status.state == pb.WORKER_FAILED:
        return InstanceState.FAILED
    if status is not None and status.state == pb.WORKER_DRAINING:
        return InstanceState.RESTARTING  # someone else asked it to shut down: its process will end
    if state in LOADED:
        return InstanceState.STALLED if stalled else InstanceState.READY
    if status is None:
        return state
    return InstanceState.READY if status.state == pb.WORKER_READY else InstanceState.LOADING


@dataclass(frozen=True, slots=True)
class Liveness:
    """Whether a worker stalls: for `timeout` seconds it sent no status, or had work and completed no step."""

    timeout: float
    status_at: float  # when its last status arrived
    progress_at: float  # when it last completed a step, or had nothing to do
    steps: int = 0

    def after(self, status: pb.WorkerStatus, now: float) -> "Liveness":
        progressed = status.steps != self.steps or not status.active
        return replace(self, status_at=now, progress_at=now if progressed else self.progress_at, steps=status.steps)

    def stalled(self, now: float) -> bool:
        return now >= self.stalls_at

    @property
    def stalls_at(self) -> float:
        return min(self.status_at, self.progress_at) + self.timeout


@dataclass(frozen=True, slots=True)
class Idleness:
    """Since when a worker has had no work, and whether that is long enough to unload its instance."""

    last_work: float
    steps: int = 0
    busy: bool = False

    def after(self, status: pb.WorkerStatus, now: float) -> "Idleness":
        """A call that began and ended between two statuses shows only in the number of steps."""
        busy = bool(status.active or status.queued)
        worked = busy or status.steps != self.steps
        return replace(self, last_work=now if worked else self.last_work, steps=status.steps, busy=busy)

    def idle_seconds(self, now: float) -> float:
        """0 while it works."""
        return 0.0 if self.busy else max(0.0, now - self.last_work)

    def expired(self, now: float, ttl: float | None) -> bool:
        """Whether it has been idle for `ttl` seconds; with None it never expires."""
        return ttl is not None and not self.busy and now - self.last_work >= ttl
