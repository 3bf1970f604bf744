"""The state that an instance is in, by what its worker says or fails to say: pure."""

from protos import inference_pb2 as pb
from registry.instances.instance_record import State

LOADED = (State.READY, State.STALLED)


def judge(state: State, status: pb.WorkerStatus | None, *, stalled: bool) -> State:
    """The state after this status, or after none came in time (`status` is None)."""
    if status is not None and status.state == pb.WORKER_FAILED:
        return State.FAILED
    if status is not None and status.state == pb.WORKER_DRAINING:
        return State.RESTARTING  # someone else told it to end: its process will
    if state in LOADED:
        return State.STALLED if stalled else State.READY
    if status is None:
        return state
    return State.READY if status.state == pb.WORKER_READY else State.LOADING
