"""What a worker reports of a generation, as both ends of the wire hold it."""

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
    TOOL_CALLS = pb.TOOL_CALLS


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of one choice. Times in seconds."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    predicted_tokens: int = 0
    queue_seconds: float = 0.0
    time_to_first_token_seconds: float = 0.0
    generation_seconds: float = 0.0
    tokens_per_second: float = 0.0
    draft_tokens: int = 0  # proposed by speculation
    accepted_draft_tokens: int = 0
    reasoning_tokens: int = 0  # of the predicted ones

    def then(self, later: "Statistics") -> "Statistics":
        """Sums with those of the same answer's next generation; the time to the first token is the first's."""
        summed = {name: getattr(self, name) + getattr(later, name) for name in Statistics.__slots__}
        summed["time_to_first_token_seconds"] = self.time_to_first_token_seconds
        seconds = summed["generation_seconds"]
        summed["tokens_per_second"] = summed["predicted_tokens"] / seconds if seconds else 0.0
        return Statistics(**summed)


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a choice."""

    choice: int
    reason: StopReason
    stop_string: str | None
    statistics: Statistics


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """A part of a tool call, in the order of generation."""

    index: int  # of the call in its completion, from 0
    id: str = ""  # in the first piece only, like the name
    name: str = ""
    arguments: str = ""  # a piece of the JSON text


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was left out of a prompt that was too long: whole messages of a chat, and tokens of the rest."""

    messages: int = 0
    tokens: int = 0

    def __add__(self, other: "Dropped") -> "Dropped":
        return Dropped(self.messages + other.messages, self.tokens + other.tokens)

    def __bool__(self) -> bool:
        return bool(self.messages or self.tokens)


NOTHING_DROPPED = Dropped()
