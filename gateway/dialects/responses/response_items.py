"""The items of conversations and responses. An item's id contains the id of the response that it is stored with."""

import re
import uuid
from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from gateway.dialects.openai.openai_logprobs import Logprob
from gateway.dialects.route import Nullable

PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
    "mcp_approval_request": "mcpr",
    "mcp_approval_response": "mcpa",
}
ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{32})[io]\d{1,6}")


def new_response_id() -> str:
    return f"resp_{uuid.uuid4().hex}"


def input_item_id(response_id: str, kind: str, number: int) -> str:
    return f"{PREFIXES[kind]}_{response_id.removeprefix('resp_')}i{number}"


def output_item_id(response_id: str, kind: str, number: int) -> str:
    return f"{PREFIXES[kind]}_{response_id.removeprefix('resp_')}o{number}"


def response_of(item_id: str) -> str | None:
    """The id of the response that has this item; None if this server did not create the id."""
    found = ITEM_ID.fullmatch(item_id)
    return f"resp_{found[1]}" if found else None


ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(TypedDict):
    type: Literal["output_text"]
    text: str
    annotations: list[object]
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
    """The call did not reach its tool, or no reply arrived."""

    type: Literal["mcp_protocol_error", "http_error"]
    code: int
    message: str


class ExecutionError(TypedDict):
    """The tool reported an error."""

    type: Literal["mcp_tool_execution_error"]
    content: Annotated[object, Field(description="MCP's content.")]


class MCPCallReply(TypedDict):
    """A call of an MCP server's tool, run by the gateway."""

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
    input_schema: object
    annotations: object


class MCPListReply(TypedDict):
    """The tools of a server that the request allows."""

    id: str
    type: Literal["mcp_list_tools"]
    server_label: str
    tools: list[MCPToolReply]


class ApprovalRequestReply(TypedDict):
    """A call that runs only if a later request approves it."""

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
