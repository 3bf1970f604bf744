"""What a worker tells of a request, as every dialect's renderer takes it."""

from dataclasses import dataclass
from enum import IntEnum

from protos import inference_pb2 as pb


class StopReason(IntEnum):
    """Why a choice ended. The numbers are the wire's."""

    UNSPECIFIED = pb.STOP_REASON_UNSPECIFIED
    EOS_FOUND = pb.EOS_FOUND
    STOP_STRING_FOUND = pb.STOP_STRING_FOUND
    MAX_PREDICTED_TOKENS_REACHED = pb.MAX_PREDICTED_TOKENS_REACHED
    CONTEXT_LENGTH_REACHED = pb.CONTEXT_LENGTH_REACHED
    USER_STOPPED = pb.USER_STOPPED
    MODEL_UNLOADED = pb.MODEL_UNLOADED


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one choice. Times in seconds."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    predicted_tokens: int = 0
    queue_seconds: float = 0.0
    time_to_first_token_seconds: float = 0.0
    generation_seconds: float = 0.0
    tokens_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that was added to a choice; never empty."""

    choice: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a choice."""

    choice: int
    reason: StopReason
    stop_string: str | None
    statistics: Statistics


Event = Delta | Finished


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole choice, for replies in one piece."""

    text: str
    finished: Finished


def read_finished(message: pb.Finished, choice: int) -> Finished:
    reason = StopReason(message.reason) if message.reason in _REASONS else StopReason.UNSPECIFIED
    stop_string = message.stop_string if message.HasField("stop_string") else None
    return Finished(choice, reason, stop_string, read_statistics(message.statistics))


_REASONS = frozenset(int(reason) for reason in StopReason)


def read_statistics(message: pb.Statistics) -> Statistics:
    return Statistics(*(getattr(message, name) for name in Statistics.__slots__))
