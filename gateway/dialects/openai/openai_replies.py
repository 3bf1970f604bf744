"""Chat and text completions as OpenAI's clients receive them: the types, and what builds them. Pure."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, NotRequired, cast

from pydantic import Field
from typing_extensions import TypedDict

from atelier.generation_types import StopReason, ToolCallPiece
from atelier.json_types import Json
from gateway.core import events
from gateway.core.events import (
    Completion,
    Elicited,
    Event,
    HostedCallArguments,
    HostedCallBegun,
    HostedCallEnded,
    HostedEvent,
)
from gateway.core.inference import RunningAnswer
from gateway.dialects.openai.openai_logprobs import ChatLogprobs, TextLogprobs, TextLogprobsEncoder, chat_logprobs
from gateway.dialects.route import Nullable

FINISH_REASONS: dict[StopReason, "FinishReason"] = {
    StopReason.EOS_FOUND: "stop",
    StopReason.STOP_STRING_FOUND: "stop",
    StopReason.MAX_PREDICTED_TOKENS_REACHED: "length",
    StopReason.CONTEXT_LENGTH_REACHED: "length",
    StopReason.TOOL_CALLS: "tool_calls",
}


class FunctionCall(TypedDict):
    name: str
    arguments: Annotated[str, Field(description="JSON, unless the token limit cut it off.")]


class ToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: FunctionCall


class MCPCall(TypedDict):
    """A call of an MCP server's tool, run by the gateway."""

    id: str
    type: Literal["mcp_call"]
    server_label: str
    name: str
    arguments: str
    status: Literal["completed", "failed"]
    output: str | None
    error: str | None


class MCPCallDelta(TypedDict):
    """A part of the call with the same index: its head, then pieces of its arguments, then the outcome."""

    index: int
    id: NotRequired[Nullable[str]]
    type: NotRequired[Nullable[Literal["mcp_call"]]]
    server_label: NotRequired[Nullable[str]]
    name: NotRequired[Nullable[str]]
    arguments: NotRequired[Nullable[str]]
    status: NotRequired[Nullable[Literal["completed", "failed"]]]
    output: NotRequired[Nullable[str]]
    error: NotRequired[Nullable[str]]


class MCPElicitation(TypedDict):
    """What a call's server asks the user. `POST /api/v1/mcp/elicitations/{id}` takes the reply."""

    id: str
    server_label: str
    name: str
    message: str
    requested_schema: NotRequired[Annotated[Nullable[Json], Field(description="JSON Schema of the answer's content.")]]
    url: NotRequired[Annotated[Nullable[str], Field(description="A page to visit instead of filling in a form.")]]


class AssistantMessage(TypedDict):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: NotRequired[Nullable[str]]
    tool_calls: NotRequired[Nullable[list[ToolCall]]]
    function_call: NotRequired[Nullable[FunctionCall]]
    mcp_calls: NotRequired[Annotated[Nullable[list[MCPCall]], Field(description="Ours: of tools of type mcp.")]]


FinishReason = Literal["stop", "length", "tool_calls", "function_call"]


class ChatChoice(TypedDict):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class PromptTokensDetails(TypedDict):
    cached_tokens: int


class CompletionTokensDetails(TypedDict):
    reasoning_tokens: int


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


Fingerprint = Annotated[
    str,
    Field(
        description="Of the model and its load settings. It ends with `-reproducible` where the same seed always gives "
        "the same text."
    ),
]


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: Fingerprint
    choices: list[ChatChoice]
    usage: Usage


class FunctionCallDelta(TypedDict):
    name: NotRequired[Nullable[str]]
    arguments: NotRequired[Nullable[str]]


class ToolCallDelta(TypedDict):
    index: int
    id: NotRequired[Nullable[str]]
    type: NotRequired[Nullable[Literal["function"]]]
    function: FunctionCallDelta


class ChatDelta(TypedDict):
    role: NotRequired[Nullable[Literal["assistant"]]]
    content: NotRequired[Nullable[str]]
    reasoning_content: NotRequired[Nullable[str]]
    tool_calls: NotRequired[Nullable[list[ToolCallDelta]]]
    function_call: NotRequired[Nullable[FunctionCallDelta]]
    mcp_calls: NotRequired[Annotated[Nullable[list[MCPCallDelta]], Field(description="Ours: of tools of type mcp.")]]
    mcp_elicitations: NotRequired[
        Annotated[Nullable[list[MCPElicitation]], Field(description="Ours: with `elicitation`.")]
    ]


class ChatChunkChoice(TypedDict):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class PromptProgress(TypedDict):
    """The prompt's tokens: all, those taken from the cache, and those processed so far."""

    total: int
    cache: int
    processed: int
    time_ms: int


class ChatChunk(TypedDict):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: Fingerprint
    choices: list[ChatChunkChoice]
    usage: NotRequired[Nullable[Usage]]
    prompt_progress: NotRequired[Nullable[PromptProgress]]


class TextChoice(TypedDict):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Annotated[FinishReason | None, Field(description="null in a stream, until its last chunk.")]


class TextCompletion(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: Fingerprint
    choices: list[TextChoice]
    usage: Usage


class TextChunk(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: Fingerprint
    choices: list[TextChoice]
    usage: NotRequired[Nullable[Usage]]
    prompt_progress: NotRequired[Nullable[PromptProgress]]


def finish_reason(reason: StopReason, *, older_calls: bool = False) -> FinishReason:
    if older_calls and reason is StopReason.TOOL_CALLS:
        return "function_call"
    return FINISH_REASONS.get(reason, "stop")


def usage(generation: RunningAnswer) -> Usage:
    prompt, completion = generation.prompt_tokens, generation.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": generation.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": generation.reasoning_tokens},
    }


def chat_choices(completions: Sequence[Completion], *, older_calls: bool = False) -> list[ChatChoice]:
    """`older_calls`: a tool call is returned as function_call."""
    return [
        {
            "index": index,
            "message": assistant_message(completion, older_calls=older_calls),
            "logprobs": None if completion.logprobs is None else chat_logprobs(completion.logprobs),
            "finish_reason": finish_reason(completion.finished.reason, older_calls=older_calls),
        }
        for index, completion in enumerate(completions)
    ]


def assistant_message(completion: Completion, *, older_calls: bool) -> AssistantMessage:
    """The content is null if there are only calls."""
    calls = completion.tool_calls
    content = completion.text if completion.text or not calls else None
    message: AssistantMessage = {"role": "assistant", "content": content, "refusal": None}
    if completion.reasoning:
        message["reasoning_content"] = completion.reasoning
    if calls and older_calls:
        message["function_call"] = function_call(calls[0])
    elif calls:
        message["tool_calls"] = [tool_call(call) for call in calls]
    return message


def text_choices(completions: Sequence[Completion], openings: Sequence[str] = ()) -> list[TextChoice]:
    """`openings`: the text before each completion, or nothing."""
    return [
        {
            "index": index,
            "text": openings[index] + completion.text if openings else completion.text,
            "logprobs": None if completion.logprobs is None else TextLogprobsEncoder().render(completion.logprobs),
            "finish_reason": finish_reason(completion.finished.reason),
        }
        for index, completion in enumerate(completions)
    ]


def tool_call(call: events.ToolCall) -> ToolCall:
    return {"id": call.id, "type": "function", "function": function_call(call)}


def function_call(call: events.ToolCall) -> FunctionCall:
    return {"name": call.name, "arguments": call.arguments}


def tool_call_delta(piece: ToolCallPiece) -> ToolCallDelta:
    """The first piece of a call has its id and its name."""
    if not piece.id:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    return {"index": piece.index, "id": piece.id, "type": "function", "function": function_call_delta(piece)}


def function_call_delta(piece: ToolCallPiece) -> FunctionCallDelta:
    if not piece.id:
        return {"arguments": piece.arguments}
    return {"name": piece.name, "arguments": piece.arguments}


def hosted_delta(event: HostedEvent) -> ChatDelta | None:
    """The chunk for an event of a hosted call; None if it changes nothing."""
    match event:
        case Elicited(question_id=id, tool=tool, question=question):
            asked: Json = {"id": id, "server_label": tool.label, "name": tool.name, **question.shown}
            return {"mcp_elicitations": [cast(MCPElicitation, asked)]}
        case HostedCallBegun(_, index, id, tool):
            call: MCPCallDelta = {"index": index, "id": id, "type": "mcp_call", "server_label": tool.label}
            call |= {"name": tool.name, "arguments": ""}
            return {"mcp_calls": [call]}
        case HostedCallArguments(_, index, text):
            return {"mcp_calls": [{"index": index, "arguments": text}]}
        case HostedCallEnded(_, index):
            status, output, error = _outcome(event)
            return {"mcp_calls": [{"index": index, "status": status, "output": output, "error": error}]}
    return None


def hosted_calls(events: Iterable[Event]) -> list[MCPCall]:
    """The calls that have ended, in the order in which they began."""
    ended = (each for each in events if isinstance(each, HostedCallEnded))
    return [hosted_call(each) for each in sorted(ended, key=lambda each: each.number)]


def hosted_call(ended: HostedCallEnded) -> MCPCall:
    status, output, error = _outcome(ended)
    return {
        "id": ended.id,
        "type": "mcp_call",
        "server_label": ended.tool.label,
        "name": ended.tool.name,
        "arguments": ended.arguments,
        "status": status,
        "output": output,
        "error": error,
    }


def _outcome(ended: HostedCallEnded) -> tuple[Literal["completed", "failed"], str | None, str | None]:
    """The status, the output and the error."""
    if ended.failure is not None:
        return "failed", None, ended.failure
    return "completed", ended.output.text if ended.output is not None else None, None
