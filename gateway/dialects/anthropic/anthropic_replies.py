"""Anthropic's replies: messages, the events of their streams, and errors. Pure."""

import json
import uuid
from typing import Annotated, Literal, NotRequired, cast

import orjson
from pydantic import Field
from pydantic_core import from_json
from typing_extensions import TypeAliasType, TypedDict

from atelier.errors import AtelierError
from atelier.generation_types import Finished, StopReason
from atelier.json_types import Json
from gateway.core.call import Call
from gateway.core.events import Completion, ToolCall
from gateway.core.inference import RunningAnswer
from gateway.dialects.route import Nullable
from gateway.http.error_responses import ErrorForm
from gateway.http.streaming import named_frame

# Clients require a signature and send it back. Anthropic's protects thinking from changes; here it is a constant.
SIGNATURE = "bG0tYXRlbGllcg=="

MessageStopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class SaidText(TypedDict):
    type: Literal["text"]
    text: str


class SaidThinking(TypedDict):
    type: Literal["thinking"]
    thinking: str
    signature: str


class SaidToolUse(TypedDict):
    type: Literal["tool_use"]
    id: str
    name: str
    input: Json


SaidBlock = SaidText | SaidThinking | SaidToolUse


class OutputTokensDetails(TypedDict):
    thinking_tokens: int


class MessageUsage(TypedDict):
    """The prompt's tokens are counted separately by whether they were in the cache."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: NotRequired[Nullable[OutputTokensDetails]]


class SaidMessage(TypedDict):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[SaidBlock]
    stop_reason: MessageStopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageStart(TypedDict):
    type: Literal["message_start"]
    message: SaidMessage


class BlockStart(TypedDict):
    type: Literal["content_block_start"]
    index: int
    content_block: SaidBlock


class TextDelta(TypedDict):
    type: Literal["text_delta"]
    text: str


class ThinkingDelta(TypedDict):
    type: Literal["thinking_delta"]
    thinking: str


class SignatureDelta(TypedDict):
    type: Literal["signature_delta"]
    signature: str


class InputDelta(TypedDict):
    type: Literal["input_json_delta"]
    partial_json: str


AnyDelta = TextDelta | ThinkingDelta | SignatureDelta | InputDelta


class BlockDelta(TypedDict):
    type: Literal["content_block_delta"]
    index: int
    delta: AnyDelta


class BlockStop(TypedDict):
    type: Literal["content_block_stop"]
    index: int


class MessageEnd(TypedDict):
    stop_reason: MessageStopReason
    stop_sequence: str | None


class MessageDelta(TypedDict):
    type: Literal["message_delta"]
    delta: MessageEnd
    usage: MessageUsage


class MessageStop(TypedDict):
    type: Literal["message_stop"]


class Ping(TypedDict):
    type: Literal["ping"]


MessageEvent = TypeAliasType(
    "MessageEvent",
    Annotated[
        MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping,
        Field(title="MessageEvent", description="The data of one event, whose name is its type."),
    ],
)


class TokenCount(TypedDict):
    input_tokens: int


STOP_REASONS: dict[StopReason, MessageStopReason] = {
    StopReason.EOS_FOUND: "end_turn",
    StopReason.MAX_PREDICTED_TOKENS_REACHED: "max_tokens",
    StopReason.CONTEXT_LENGTH_REACHED: "model_context_window_exceeded",  # type: ignore[dict-item]  # not documented
    StopReason.TOOL_CALLS: "tool_use",
}


def empty_message(name: str, usage: MessageUsage) -> SaidMessage:
    """A message without content, with which a stream begins."""
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": name,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def whole_message(generation: RunningAnswer, completion: Completion, *, show_thinking: bool = True) -> SaidMessage:
    content = content_blocks(completion, show_thinking=show_thinking)
    end = ending(completion.finished, generation.plan.call)
    return {**empty_message(generation.plan.name, usage(generation)), "content": content, **end}


def content_blocks(completion: Completion, *, show_thinking: bool = True) -> list[SaidBlock]:
    """In the order of a stream."""
    blocks: list[SaidBlock] = []
    if completion.reasoning:
        thinking = completion.reasoning if show_thinking else ""
        blocks.append({"type": "thinking", "thinking": thinking, "signature": SIGNATURE})
    if completion.text:
        blocks.append({"type": "text", "text": completion.text})
    return blocks + [tool_use(call) for call in completion.tool_calls]


def tool_use(call: ToolCall) -> SaidToolUse:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": tool_input(call.arguments)}


def tool_input(arguments: str) -> Json:
    """The arguments as an object, already encoded. If max_tokens cut them off, what Anthropic's client would parse."""
    try:
        value = from_json(arguments, allow_inf_nan=False)
    except ValueError:
        value = _partial_json(arguments)
    # Encoded by the standard library: orjson rejects integers of more than 64 bits, but inserts a fragment unchecked.
    return cast(Json, orjson.Fragment(json.dumps(value if isinstance(value, dict) else {}, separators=(",", ":"))))


def _partial_json(arguments: str) -> object:
    try:
        return from_json(arguments, allow_inf_nan=False, allow_partial=True)
    except ValueError:
        return {}


def ending(finished: Finished, call: Call) -> MessageEnd:
    """A stop string that comes from a preset, not from the client, is reported as the end of the turn."""
    if finished.reason is StopReason.STOP_STRING_FOUND and finished.stop_string in call.stop_strings:
        return {"stop_reason": "stop_sequence", "stop_sequence": finished.stop_string}
    return {"stop_reason": STOP_REASONS.get(finished.reason, "end_turn"), "stop_sequence": None}


def usage(generation: RunningAnswer) -> MessageUsage:
    """Cached tokens are known only once the generation has ended; until then they count as input tokens."""
    cached = generation.cached_tokens
    counts: MessageUsage = {
        "input_tokens": generation.prompt_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": generation.completion_tokens,
    }
    if thinking := generation.reasoning_tokens:
        counts["output_tokens_details"] = {"thinking_tokens": thinking}
    return counts


ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
ERROR_SCHEMA: Json = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
        "request_id": {"type": "string"},
    },
}


def error_type(status: int) -> str:
    return ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def error_body(error: AtelierError, request_id: str) -> Json:
    fields = {"type": error_type(error.status), "message": error.message}
    return {"type": "error", "error": fields, "request_id": request_id}


FORM = ErrorForm(error_body, lambda body: named_frame("error", body), "AnthropicError", ERROR_SCHEMA)
