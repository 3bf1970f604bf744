"""Chat and text completions as OpenAI's clients receive them: the types, and what builds them. Pure."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from atelier.generation_types import StopReason
from atelier.json_types import Json
from atelier.submission import ToolCallPiece
from gateway.core import events
from gateway.core.answer import Answering
from gateway.core.events import (
    Completion,
    Elicited,
    Event,
    HostedCallArguments,
    HostedCallBegun,
    HostedCallEnded,
    HostedEvent,
)
from gateway.dialects.openai.openai_logprobs import ChatLogprobs, TextLogprobs, TextLogprobsEncoder, chat_logprobs
from gateway.dialects.route import Nullable

FINISH_REASONS = {
    StopReason.EOS_FOUND: "stop",
    StopReason.STOP_STRING_FOUND: "stop",
    StopReason.MAX_PREDICTED_TOKENS_REACHED: "length",
    StopReason.CONTEXT_LENGTH_REACHED: "length",
    StopReason.TOOL_CALLS: "tool_calls",
}


class FunctionCall(TypedDict):
    name: str
    arguments: Annotated[str, Field(description="JSON, unless the answer's limit cut it off.")]


class ToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: FunctionCall


class MCPCall(TypedDict):
    """A call of an MCP server's tool, which the gateway has run."""

    id: str
    type: Literal["mcp_call"]
    server_label: str
    name: str
    arguments: str
    status: Literal["completed", "failed"]
    output: str | None
    error: str | None


class MCPCallDelta(TypedDict):
    """Of the call with the same index: its head first, then pieces of its arguments, then what came of it."""

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
    """What a call's server asks the user; `POST /api/v1/mcp/elicitations/{id}` answers."""

    id: str
    server_label: str
    name: str
    message: str
    requested_schema: NotRequired[
        Annotated[Nullable[dict[str, Any]], Field(description="JSON Schema of the answer's content.")]
    ]
    url: NotRequired[
        Annotated[Nullable[str], Field(description="Where the user is to go instead of filling in a form.")]
    ]


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


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
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
    """How far the prompt is: tokens of it, those taken from the cache, and those that are computed."""

    total: int
    cache: int
    processed: int
    time_ms: int


class ChatChunk(TypedDict):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
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
    choices: list[TextChoice]
    usage: Usage


class TextChunk(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: NotRequired[Nullable[Usage]]
    prompt_progress: NotRequired[Nullable[PromptProgress]]


def finish_reason(reason: StopReason, *, older_calls: bool = False) -> str:
    if older_calls and reason is StopReason.TOOL_CALLS:
        return "function_call"
    return FINISH_REASONS.get(reason, "stop")


def usage(generation: Answering) -> dict[str, Any]:
    prompt, completion = generation.prompt_tokens, generation.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": generation.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": generation.reasoning_tokens},
    }


def chat_choices(completions: list[Completion], *, older_calls: bool = False) -> list[dict[str, Any]]:
    """`older_calls`: a tool call is told as function_call."""
    return [
        {
            "index": index,
            "message": assistant_message(completion, older_calls=older_calls),
            "logprobs": None if completion.logprobs is None else chat_logprobs(completion.logprobs),
            "finish_reason": finish_reason(completion.finished.reason, older_calls=older_calls),
        }
        for index, completion in enumerate(completions)
    ]


def assistant_message(completion: Completion, *, older_calls: bool) -> dict[str, Any]:
    """Calls without a word have no content; reasoning is told where there is some."""
    calls = completion.tool_calls
    content = completion.text if completion.text or not calls else None
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if completion.reasoning:
        message["reasoning_content"] = completion.reasoning
    if not calls:
        return message
    if older_calls:
        return {**message, "function_call": function_call_object(calls[0])}
    return {**message, "tool_calls": [tool_call_object(call) for call in calls]}


def text_choices(completions: list[Completion], openings: list[str] | None = None) -> list[dict[str, Any]]:
    """`openings`: what each choice's text begins with."""
    return [
        {
            "index": index,
            "text": openings[index] + completion.text if openings else completion.text,
            "logprobs": None if completion.logprobs is None else TextLogprobsEncoder().render(completion.logprobs),
            "finish_reason": finish_reason(completion.finished.reason),
        }
        for index, completion in enumerate(completions)
    ]


def tool_call_object(call: events.ToolCall) -> Json:
    return {"id": call.id, "type": "function", "function": function_call_object(call)}


def function_call_object(call: events.ToolCall) -> Json:
    return {"name": call.name, "arguments": call.arguments}


def tool_call_delta(piece: ToolCallPiece) -> Json:
    """The first piece of a call has its id and its name."""
    if not piece.id:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    return {"index": piece.index, "id": piece.id, "type": "function", "function": function_call_delta(piece)}


def function_call_delta(piece: ToolCallPiece) -> Json:
    named_first = {"name": piece.name} if piece.id else {}
    return {**named_first, "arguments": piece.arguments}


def call_delta(event: HostedEvent) -> Json | None:
    """What a chunk adds to the call with the same index; None where it adds nothing."""
    match event:
        case HostedCallBegun(_, number, id, tool):
            head = {"id": id, "type": "mcp_call", "server_label": tool.label, "name": tool.name}
            return {"index": number, **head, "arguments": ""}
        case HostedCallArguments(_, number, text):
            return {"index": number, "arguments": text}
        case HostedCallEnded(_, number):
            return {"index": number, **_outcome(event)}
    return None


def elicitation(event: Elicited) -> Json:
    head = {"id": event.question_id, "server_label": event.tool.label, "name": event.tool.name}
    return {**head, **event.question.told}


def whole_calls(events: Iterable[Event]) -> list[Json]:
    """Of a whole answer."""
    ended = sorted((each for each in events if isinstance(each, HostedCallEnded)), key=lambda each: each.number)
    return [
        {
            "id": each.id,
            "type": "mcp_call",
            "server_label": each.tool.label,
            "name": each.tool.name,
            "arguments": each.arguments,
            **_outcome(each),
        }
        for each in ended
    ]


def _outcome(ended: HostedCallEnded) -> Json:
    output = ended.output.text if ended.output is not None and ended.failure is None else None
    return {"status": "completed" if ended.failure is None else "failed", "output": output, "error": ended.failure}
