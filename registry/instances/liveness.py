"""Whether a worker is alive and gets on: pure, from what it was heard to say and when."""

from dataclasses import dataclass, replace

from protos.inference_pb2 import WorkerStatus


@dataclass(frozen=True, slots=True)
class Pulse:
    """Times are of one monotonic clock, in seconds."""

    patience: float  # seconds without a sign of life, or with work and without a step
    heard_at: float
    moved_at: float  # when it last made a step, or had nothing to do
    steps: int = 0

    def after(self, status: WorkerStatus, now: float) -> "Pulse":
        moved = status.steps != self.steps or not status.active
        return replace(self, heard_at=now, moved_at=now if moved else self.moved_at, steps=status.steps)

    def stalled(self, now: float) -> bool:
        return now >= self.stalls_at

    @property
    def stalls_at(self) -> float:
        return min(self.heard_at, self.moved_at) + self.patience
