"""What becomes of a request, as every dialect's renderer takes it: what its worker tells, and the tools it calls."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from atelier.submission import ToolCallPiece
from gateway.core.hosted_tool import HostedTool, ToolOutput
from gateway.core.question import Question
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
    """Of one choice. Times in seconds."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    predicted_tokens: int = 0
    queue_seconds: float = 0.0
    time_to_first_token_seconds: float = 0.0
    generation_seconds: float = 0.0
    tokens_per_second: float = 0.0
    draft_tokens: int = 0  # guessed ahead by speculation
    accepted_draft_tokens: int = 0
    reasoning_tokens: int = 0  # of the predicted ones

    def then(self, later: "Statistics") -> "Statistics":
        """Of an answer that went on: counts and times together, the first token's as it was."""
        summed = {name: getattr(self, name) + getattr(later, name) for name in Statistics.__slots__}
        summed["time_to_first_token_seconds"] = self.time_to_first_token_seconds
        seconds = summed["generation_seconds"]
        summed["tokens_per_second"] = summed["predicted_tokens"] / seconds if seconds else 0.0
        return Statistics(**summed)


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was left out of a prompt that was too long: whole messages of a chat, and tokens out of what remained."""

    messages: int = 0
    tokens: int = 0

    def __add__(self, other: "Dropped") -> "Dropped":
        return Dropped(self.messages + other.messages, self.tokens + other.tokens)

    def __bool__(self) -> bool:
        return bool(self.messages or self.tokens)


NOTHING = Dropped()


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Of one token, whose bytes may be part of a code point."""

    piece: bytes
    logprob: float | None  # None: of a prompt's first token, which nothing tells the odds of
    top: tuple["TokenLogprob", ...] = ()  # the likeliest tokens, likeliest first


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """How far a prompt is computed, in tokens; `done` includes the cached ones."""

    choice: int  # the prompt's first
    prompt_tokens: int
    cached_tokens: int
    done_tokens: int
    seconds: float  # since the worker accepted the prompt


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that was added to a choice; never empty, unless log-probabilities are wanted."""

    choice: int
    text: str
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What a choice thinks before it answers; never empty."""

    choice: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A part of one of a choice's tool calls. Its first has the id and the name."""

    choice: int
    piece: ToolCallPiece


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a choice."""

    choice: int
    reason: StopReason
    stop_string: str | None
    statistics: Statistics


@dataclass(frozen=True, slots=True)
class HostedCallBegun:
    """A call of a tool that the gateway will run. `number`: of the call in its answer, from 0."""

    choice: int
    number: int
    id: str
    tool: HostedTool


@dataclass(frozen=True, slots=True)
class HostedCallArguments:
    """A piece of the JSON text of a call's arguments; never empty."""

    choice: int
    number: int
    text: str


@dataclass(frozen=True, slots=True)
class HostedCallRuns:
    """A call is complete, and on its way to its server."""

    choice: int
    number: int
    arguments: str  # JSON


@dataclass(frozen=True, slots=True)
class HostedCallEnded:
    """What came of a call: either an output, or the reason for which there is none."""

    choice: int
    number: int
    id: str
    tool: HostedTool
    arguments: str  # JSON, unless the answer's limit cut it off
    output: ToolOutput | None
    error: str = ""

    @property
    def failure(self) -> str | None:
        """Why the call came to nothing, in the tool's own words where they are."""
        if self.output is None:
            return self.error
        return (self.output.text or "The tool says that it failed.") if self.output.is_error else None


@dataclass(frozen=True, slots=True)
class Elicited:
    """A call's server wants to know something of the user, and waits for it. `question_id`: by which it is answered."""

    choice: int
    number: int
    id: str
    tool: HostedTool
    question_id: str
    question: Question


@dataclass(frozen=True, slots=True)
class ApprovalWanted:
    """A call that does not run unless a person agrees to it; the answer ends with it."""

    choice: int
    number: int
    id: str
    tool: HostedTool
    arguments: str  # JSON


HostedEvent = HostedCallBegun | HostedCallArguments | HostedCallRuns | Elicited | HostedCallEnded | ApprovalWanted
Event = PromptProgress | Reasoning | Delta | ToolCallDelta | HostedEvent | Finished


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What the caller is to run."""

    id: str
    name: str
    arguments: str  # JSON


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole choice, for replies in one piece."""

    text: str
    finished: Finished
    logprobs: Sequence[TokenLogprob] | None = None  # None: not wanted
    reasoning: str = ""
    tool_calls: Sequence[ToolCall] = ()


def completion_events(completion: Completion) -> Iterator[Event]:
    """Those that a completion would have come as, but for its end."""
    if completion.reasoning:
        yield Reasoning(0, completion.reasoning)
    if completion.text or completion.logprobs:
        yield Delta(0, completion.text, completion.logprobs or ())
    for number, call in enumerate(completion.tool_calls):
        yield ToolCallDelta(0, ToolCallPiece(number, call.id, call.name, call.arguments))


def read_finished(message: pb.Finished, choice: int) -> Finished:
    reason = StopReason(message.reason) if message.reason in _REASONS else StopReason.UNSPECIFIED
    stop_string = message.stop_string if message.HasField("stop_string") else None
    return Finished(choice, reason, stop_string, read_statistics(message.statistics))


_REASONS = frozenset(int(reason) for reason in StopReason)


def read_statistics(message: pb.Statistics) -> Statistics:
    return Statistics(*(getattr(message, name) for name in Statistics.__slots__))


def read_logprobs(message: pb.Delta) -> list[TokenLogprob]:
    """Of the tokens that the delta stands for: the one that ends a completion is no part of it."""
    return [_read_logprob(each) for each in message.logprobs[: message.tokens]]


def read_echoed_logprobs(message: pb.Echoed) -> list[TokenLogprob]:
    return list(map(_read_logprob, message.logprobs))


def _read_logprob(message: pb.TokenLogprob) -> TokenLogprob:
    logprob = message.logprob if message.HasField("logprob") else None
    return TokenLogprob(message.piece, logprob, tuple(map(_read_logprob, message.top)))
