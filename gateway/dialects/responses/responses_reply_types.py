"""The replies of the routes of OpenAI's responses."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from gateway.dialects.openai.openai_logprobs import Logprob
from gateway.dialects.route import Nullable

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(TypedDict):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[Logprob]


class RefusalText(TypedDict):
    type: Literal["refusal"]
    refusal: str


class ReasoningText(TypedDict):
    type: Literal["reasoning_text"]
    text: str


class SummaryText(TypedDict):
    type: Literal["summary_text"]
    text: str


class InputText(TypedDict):
    type: Literal["input_text"]
    text: str


class InputImage(TypedDict):
    type: Literal["input_image"]
    image_url: str
    detail: NotRequired[Nullable[str]]


class OutputMessage(TypedDict):
    id: str
    type: Literal["message"]
    role: Literal["user", "assistant", "system", "developer"]
    content: list[OutputText | RefusalText | InputText | InputImage]
    status: ItemStatus


class ReasoningItemReply(TypedDict):
    id: str
    type: Literal["reasoning"]
    summary: list[SummaryText]
    content: NotRequired[Nullable[list[ReasoningText]]]
    status: ItemStatus


class FunctionCallReply(TypedDict):
    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    status: ItemStatus


class FunctionCallOutputReply(TypedDict):
    id: str
    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputText | InputImage]
    status: ItemStatus


class ProtocolError(TypedDict):
    """The call never got to its tool, or its reply did not come."""

    type: Literal["mcp_protocol_error", "http_error"]
    code: int
    message: str


class ExecutionError(TypedDict):
    """The tool says that it failed."""

    type: Literal["mcp_tool_execution_error"]
    content: Annotated[Any, Field(description="MCP's content.")]


class MCPCallReply(TypedDict):
    """A call of an MCP server's tool, which the gateway has run."""

    id: str
    type: Literal["mcp_call"]
    server_label: str
    name: str
    arguments: str
    approval_request_id: str | None
    output: str | None
    error: ProtocolError | ExecutionError | None
    status: Literal["in_progress", "completed", "incomplete", "calling", "failed"]


class MCPToolReply(TypedDict):
    name: str
    description: str | None
    input_schema: Any
    annotations: Any


class MCPListReply(TypedDict):
    """What a server offers, as far as the request allows it."""

    id: str
    type: Literal["mcp_list_tools"]
    server_label: str
    tools: list[MCPToolReply]


class ApprovalRequestReply(TypedDict):
    """A call that does not run unless the next request agrees to it."""

    id: str
    type: Literal["mcp_approval_request"]
    server_label: str
    name: str
    arguments: str


class ApprovalResponseReply(TypedDict):
    id: str
    type: Literal["mcp_approval_response"]
    approval_request_id: str
    approve: bool
    reason: str | None


OutputItem = OutputMessage | ReasoningItemReply | FunctionCallReply | MCPCallReply | MCPListReply | ApprovalRequestReply
AnyItem = OutputItem | FunctionCallOutputReply | ApprovalResponseReply


class InputTokensDetails(TypedDict):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensReasoning(TypedDict):
    reasoning_tokens: int


class ResponseUsage(TypedDict):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensReasoning
    total_tokens: int


class ResponseError(TypedDict):
    code: str
    message: str
    type: str
    param: str | None


class IncompleteDetails(TypedDict):
    reason: Literal["max_output_tokens"]


class ReasoningEcho(TypedDict):
    effort: str | None
    summary: str | None


class ResponseObject(TypedDict):
    """The response, and what it repeats of its request."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    completed_at: int | None
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None
    store: bool
    temperature: float | None
    top_p: float | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ReasoningEcho
    safety_identifier: str | None
    service_tier: Literal["default"]
    text: Annotated[dict[str, Any], Field(description="The format and the verbosity.")]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    truncation: Literal["auto", "disabled"]
    user: str | None


class Numbered(TypedDict):
    sequence_number: int


class ResponseState(Numbered):
    type: Literal[
        "response.created", "response.in_progress", "response.completed", "response.incomplete", "response.failed"
    ]
    response: ResponseObject


class ItemEvent(Numbered):
    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int
    item: OutputItem


class PlacedEvent(Numbered):
    item_id: str
    output_index: int


class PartEvent(PlacedEvent):
    type: Literal["response.content_part.added", "response.content_part.done"]
    content_index: int
    part: OutputText | ReasoningText


class OutputTextDelta(PlacedEvent):
    type: Literal["response.output_text.delta"]
    content_index: int
    delta: str
    logprobs: list[Logprob]


class OutputTextDone(PlacedEvent):
    type: Literal["response.output_text.done"]
    content_index: int
    text: str
    logprobs: list[Logprob]


class ReasoningTextDelta(PlacedEvent):
    type: Literal["response.reasoning_text.delta"]
    content_index: int
    delta: str


class ReasoningTextDone(PlacedEvent):
    type: Literal["response.reasoning_text.done"]
    content_index: int
    text: str


class ArgumentsDelta(PlacedEvent):
    type: Literal["response.function_call_arguments.delta"]
    delta: str


class ArgumentsDone(PlacedEvent):
    type: Literal["response.function_call_arguments.done"]
    name: str
    arguments: str


class MCPArgumentsDelta(PlacedEvent):
    type: Literal["response.mcp_call_arguments.delta"]
    delta: str


class MCPArgumentsDone(PlacedEvent):
    type: Literal["response.mcp_call_arguments.done"]
    arguments: str


class MCPState(PlacedEvent):
    type: Literal[
        "response.mcp_list_tools.in_progress",
        "response.mcp_list_tools.completed",
        "response.mcp_call.in_progress",
        "response.mcp_call.completed",
        "response.mcp_call.failed",
    ]


ResponseEvent = TypeAliasType(
    "ResponseEvent",
    Annotated[
        ResponseState
        | ItemEvent
        | PartEvent
        | OutputTextDelta
        | OutputTextDone
        | ReasoningTextDelta
        | ReasoningTextDone
        | ArgumentsDelta
        | ArgumentsDone
        | MCPArgumentsDelta
        | MCPArgumentsDone
        | MCPState,
        Field(title="ResponseEvent", description="The data of one event, whose name is its type."),
    ],
)


class ItemList(TypedDict):
    object: Literal["list"]
    data: list[AnyItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedResponse(TypedDict):
    id: str
    object: Literal["response"]
    deleted: Literal[True]
