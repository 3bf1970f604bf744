"""The replies and stream events of LM Studio's v1 chat, and the errors of all v1 routes. Pure."""

from collections.abc import Sequence
from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from atelier.errors import (
    AtelierError,
    DownloadNotFound,
    InstanceNotFound,
    MCPConnectionError,
    ModelNotFound,
    UnsupportedField,
)
from atelier.generation_types import Statistics
from atelier.json_types import Json
from gateway.dialects.route import Nullable
from gateway.http.error_responses import ErrorForm
from gateway.http.streaming import named_frame


class V1Text(TypedDict):
    type: Literal["message", "reasoning"]
    content: str


class PluginInfo(TypedDict):
    type: Literal["plugin"]
    plugin_id: str


class EphemeralInfo(TypedDict):
    type: Literal["ephemeral_mcp"]
    server_label: str


ProviderInfo = PluginInfo | EphemeralInfo


class CalledTool(TypedDict):
    tool: str
    provider_info: ProviderInfo


class CallResult(CalledTool):
    arguments: Json
    output: str


class FailedCall(TypedDict):
    """A call of an unknown tool, or of a tool whose server returned no result."""

    type: Literal["invalid_name", "failed"]
    tool_name: str
    arguments: NotRequired[Nullable[Json]]
    provider_info: NotRequired[Nullable[ProviderInfo]]


class CallFailure(TypedDict):
    reason: str
    metadata: FailedCall


class V1ToolCall(TypedDict):
    type: Literal["tool_call"]
    tool: str
    arguments: Json
    output: Annotated[str, Field(description="MCP's content, as the text of a JSON array.")]
    provider_info: ProviderInfo


class V1InvalidToolCall(TypedDict):
    type: Literal["invalid_tool_call"]
    reason: str
    metadata: FailedCall


V1Output = V1Text | V1ToolCall | V1InvalidToolCall


class V1Stats(TypedDict):
    input_tokens: int
    total_output_tokens: int
    reasoning_output_tokens: int
    tokens_per_second: float
    time_to_first_token_seconds: float
    model_load_time_seconds: NotRequired[Nullable[float]]


class V1Chat(TypedDict):
    model_instance_id: str
    output: list[V1Output]
    stats: V1Stats
    response_id: NotRequired[Nullable[str]]


class ChatStart(TypedDict):
    type: Literal["chat.start"]
    model_instance_id: str


class ToolCallStart(TypedDict):
    type: Literal["tool_call.start"]
    tool: str
    provider_info: ProviderInfo


class ToolCallArguments(TypedDict):
    type: Literal["tool_call.arguments"]
    tool: str
    arguments: Json
    provider_info: ProviderInfo


class ToolCallElicitation(TypedDict):
    """Not part of LM Studio's API. The call's server asks the user; `POST /api/v1/mcp/elicitations/{id}` answers."""

    type: Literal["tool_call.elicitation"]
    id: str
    tool: str
    provider_info: ProviderInfo
    message: str
    requested_schema: NotRequired[Annotated[Nullable[Json], Field(description="JSON Schema of the answer's content.")]]
    url: NotRequired[Annotated[Nullable[str], Field(description="The page for the user to visit, instead of a form.")]]


class ToolCallSuccess(TypedDict):
    type: Literal["tool_call.success"]
    tool: str
    arguments: Json
    output: str
    provider_info: ProviderInfo


class ToolCallFailure(TypedDict):
    type: Literal["tool_call.failure"]
    reason: str
    metadata: FailedCall


class Mark(TypedDict):
    type: Literal[
        "prompt_processing.start",
        "prompt_processing.end",
        "reasoning.start",
        "reasoning.end",
        "message.start",
        "message.end",
    ]


class LoadStart(TypedDict):
    type: Literal["model_load.start"]
    model_instance_id: str


class LoadProgress(TypedDict):
    type: Literal["model_load.progress"]
    model_instance_id: str
    progress: Annotated[float, Field(ge=0, le=1)]


class LoadEnd(TypedDict):
    type: Literal["model_load.end"]
    model_instance_id: str
    load_time_seconds: float


class PromptShare(TypedDict):
    type: Literal["prompt_processing.progress"]
    progress: Annotated[float, Field(ge=0, le=1)]


class PartDelta(TypedDict):
    type: Literal["reasoning.delta", "message.delta"]
    content: str


class StreamFault(TypedDict):
    type: str
    message: str
    code: NotRequired[Nullable[str]]
    param: NotRequired[Nullable[str]]


class ErrorInStream(TypedDict):
    type: Literal["error"]
    error: StreamFault


class ChatEnd(TypedDict):
    type: Literal["chat.end"]
    result: V1Chat


ToolCallEvent = ToolCallStart | ToolCallArguments | ToolCallElicitation | ToolCallSuccess | ToolCallFailure
LoadEvent = LoadStart | LoadProgress | LoadEnd
V1ChatEvent = TypeAliasType(
    "V1ChatEvent",
    Annotated[
        ChatStart | LoadEvent | Mark | PromptShare | PartDelta | ToolCallEvent | ErrorInStream | ChatEnd,
        Field(title="V1ChatEvent", description="The data of one event, whose name is its type."),
    ],
)


def chat_stats(figures: Statistics, load_seconds: float | None) -> V1Stats:
    """`load_seconds`: None if the model was already loaded."""
    stats: V1Stats = {
        "input_tokens": figures.prompt_tokens,
        "total_output_tokens": figures.predicted_tokens,
        "reasoning_output_tokens": figures.reasoning_tokens,
        "tokens_per_second": figures.tokens_per_second,
        "time_to_first_token_seconds": figures.time_to_first_token_seconds,
    }
    if load_seconds is not None:
        stats["model_load_time_seconds"] = load_seconds
    return stats


def chat_result(instance_id: str, output: Sequence[V1Output], stats: V1Stats, response_id: str | None) -> V1Chat:
    """`response_id`: None if the response is not stored."""
    result: V1Chat = {"model_instance_id": instance_id, "output": list(output), "stats": stats}
    if response_id is not None:
        result["response_id"] = response_id
    return result


ERROR_TYPES = (
    *("invalid_request", "model_not_found", "job_not_found", "mcp_connection_error", "not_implemented"),
    "internal_error",
)
ERROR_SCHEMA: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"enum": list(ERROR_TYPES)},
                "message": {"type": "string"},
                "code": {"type": "string"},
                "param": {"type": "string", "description": "The request's field at fault."},
            },
        }
    },
}


def error_type(error: AtelierError) -> str:
    """One of LM Studio's types; the code is more specific."""
    match error:
        case ModelNotFound() | InstanceNotFound():
            return "model_not_found"
        case DownloadNotFound():
            return "job_not_found"
        case MCPConnectionError():
            return "mcp_connection_error"
        case UnsupportedField():
            return "not_implemented"
        case _ if error.status < 500:
            return "invalid_request"
    return "internal_error"


def error_body(error: AtelierError, request_id: str) -> Json:
    """The request's id is in the headers only."""
    fields = {"type": error_type(error), "message": error.message, "code": error.code}
    return {"error": {**fields, "param": error.param} if error.param else fields}


def error_event(body: bytes) -> bytes:
    """As in all of LM Studio's events, the data contains the event's type."""
    return named_frame("error", b'{"type":"error",' + body.removeprefix(b"{"))


FORM = ErrorForm(error_body, error_event, "LMStudioError", ERROR_SCHEMA)
