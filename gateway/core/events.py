"""The events of an answer, as every dialect renders them: what the worker generates, and the tool calls run here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from atelier.generation_types import Finished, ToolCallPiece
from gateway.core.hosted_tool import HostedTool, ToolOutput
from gateway.core.question import Question


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token's log-probability. Its bytes may be part of a code point."""

    piece: bytes
    logprob: float | None  # None for a prompt's first token, which has none
    top: tuple["TokenLogprob", ...] = ()  # the most likely tokens, most likely first


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """How much of a prompt is computed, in tokens; `done` includes the cached ones."""

    choice: int  # the prompt's first
    prompt_tokens: int
    cached_tokens: int
    done_tokens: int
    seconds: float  # since the worker accepted the prompt


@dataclass(frozen=True, slots=True)
class Delta:
    """Text added to a choice; never empty, unless log-probabilities are requested."""

    choice: int
    text: str
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Reasoning added to a choice; never empty."""

    choice: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A part of one of a choice's tool calls. The first part has the id and the name."""

    choice: int
    piece: ToolCallPiece


@dataclass(frozen=True, slots=True)
class HostedCallBegun:
    """The start of a call to a tool that the gateway will run. `number`: the call's index in its answer, from 0."""

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
    """A call is complete and was sent to its server."""

    choice: int
    number: int
    arguments: str  # JSON


@dataclass(frozen=True, slots=True)
class HostedCallEnded:
    """The result of a call: an output, or the reason why there is none."""

    choice: int
    number: int
    id: str
    tool: HostedTool
    arguments: str  # JSON, unless max_tokens cut it off
    output: ToolOutput | None
    error: str = ""

    @property
    def failure(self) -> str | None:
        """Why the call failed, in the tool's own words where it gave any; None: it did not fail."""
        if self.output is None:
            return self.error
        return (self.output.text or "The tool reported an error.") if self.output.is_error else None


@dataclass(frozen=True, slots=True)
class Elicited:
    """A call's server asks the user a question and waits for the answer, which names `question_id`."""

    choice: int
    number: int
    id: str
    tool: HostedTool
    question_id: str
    question: Question


@dataclass(frozen=True, slots=True)
class ApprovalWanted:
    """A call that runs only once a person has approved it; the answer ends with it."""

    choice: int
    number: int
    id: str
    tool: HostedTool
    arguments: str  # JSON


HostedEvent = HostedCallBegun | HostedCallArguments | HostedCallRuns | Elicited | HostedCallEnded | ApprovalWanted
Event = PromptProgress | Reasoning | Delta | ToolCallDelta | HostedEvent | Finished


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the client is to run."""

    id: str
    name: str
    arguments: str  # JSON


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole choice, for replies that are not streamed."""

    text: str
    finished: Finished
    logprobs: Sequence[TokenLogprob] | None = None  # None: not requested
    reasoning: str = ""
    tool_calls: Sequence[ToolCall] = ()


@dataclass(slots=True)
class CompletionDraft:
    """Collects one choice's events into a completion."""

    texts: list[str] = field(default_factory=list)
    reasonings: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    calls: dict[int, list[str]] = field(default_factory=dict)  # by index: id, name, then pieces of the arguments

    def add(self, event: Event) -> None:
        match event:
            case Delta(_, text, logprobs):
                self.texts.append(text)
                self.logprobs.extend(logprobs)
            case Reasoning(_, text):
                self.reasonings.append(text)
            case ToolCallDelta(_, piece):
                self.calls.setdefault(piece.index, [piece.id, piece.name]).append(piece.arguments)

    def completion(self, finished: Finished, *, logprobs: bool) -> Completion:
        return Completion(
            "".join(self.texts),
            finished,
            self.logprobs if logprobs else None,
            "".join(self.reasonings),
            [ToolCall(id, name, "".join(pieces)) for id, name, *pieces in self.calls.values()],
        )


def completion_events(completion: Completion) -> Iterator[Event]:
    """The events that a stream of the completion would have had, but for its end."""
    if completion.reasoning:
        yield Reasoning(0, completion.reasoning)
    if completion.text or completion.logprobs:
        yield Delta(0, completion.text, completion.logprobs or ())
    for number, call in enumerate(completion.tool_calls):
        yield ToolCallDelta(0, ToolCallPiece(number, call.id, call.name, call.arguments))
