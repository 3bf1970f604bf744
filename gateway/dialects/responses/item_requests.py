"""The items of a response's input, as clients send them."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from gateway.dialects.body import Body, by_json_type
from gateway.dialects.openai.mcp_tool import Label

MOST_ITEMS = 10_000
MOST_PARTS = 1_000
MOST_LISTED = 4096  # tools in one item
LONGEST_REASON = 4096  # characters

Id = Annotated[str, Field(min_length=1, max_length=128)]
Status = Literal["in_progress", "completed", "incomplete"]
ServerToolName = Annotated[str, Field(min_length=1, max_length=256)]


class Part(Body):
    """A part of a message, of reasoning, or of a function's output, each of which allows types of its own."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = Field(None, description="http, https, or a data URL in base64.")
    detail: str | None = Field(None, description="Ignored: the model determines how many tokens an image has.")
    file_id: str | None = Field(None, description="Not supported: files are not stored.")


Content = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[list[Part], Field(max_length=MOST_PARTS), Tag("(list)")],
    by_json_type({str: "(text)", list: "(list)"}, "content", "must be a string or a list of content parts"),
]


class MessageItem(Body):
    type: Literal["message"] | None = None
    id: Id | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    status: Status | None = None


class FunctionCallItem(Body):
    type: Literal["function_call"]
    id: Id | None = None
    call_id: Id
    name: Annotated[str, Field(min_length=1, max_length=128)]
    arguments: str
    status: Status | None = None


class FunctionCallOutputItem(Body):
    type: Literal["function_call_output"]
    id: Id | None = None
    call_id: Id
    output: Content
    status: Status | None = None


class ReasoningItem(Body):
    type: Literal["reasoning"]
    id: Id | None = None
    summary: Annotated[list[Part], Field(max_length=MOST_PARTS)]
    content: Annotated[list[Part], Field(max_length=MOST_PARTS)] | None = None
    status: Status | None = None


class ToolFailure(Body):
    """Why a call of a server's tool failed; the fields depend on the type."""

    type: Literal["mcp_protocol_error", "mcp_tool_execution_error", "http_error"]
    code: int | None = None
    message: str | None = None
    content: object = None


def _text_or_object(value: object) -> str:
    return "(text)" if isinstance(value, str) else "(object)"


class MCPCallItem(Body):
    type: Literal["mcp_call"]
    id: Id | None = None
    server_label: Label
    name: ServerToolName
    arguments: str
    approval_request_id: Id | None = None
    output: str | None = None
    error: (
        Annotated[
            Annotated[str, Tag("(text)")] | Annotated[ToolFailure, Tag("(object)")], Discriminator(_text_or_object)
        ]
        | None
    ) = None
    status: Literal["in_progress", "completed", "incomplete", "calling", "failed"] | None = None


class ListedTool(Body):
    name: ServerToolName
    description: str | None = None
    input_schema: object
    annotations: object = None


class MCPListItem(Body):
    """Stored, but not part of the prompt."""

    type: Literal["mcp_list_tools"]
    id: Id | None = None
    server_label: Label
    tools: Annotated[list[ListedTool], Field(max_length=MOST_LISTED)]


class ApprovalRequestItem(Body):
    type: Literal["mcp_approval_request"]
    id: Id
    server_label: Label
    name: ServerToolName
    arguments: str


class ApprovalResponseItem(Body):
    type: Literal["mcp_approval_response"]
    id: Id | None = None
    approval_request_id: Id
    approve: bool
    reason: Annotated[str, Field(max_length=LONGEST_REASON)] | None = None


class ItemReference(Body):
    type: Literal["item_reference"] | None = None
    id: Id


class OtherItem(Body):
    """An item of an unsupported type, which the error names."""

    type: str


SERVER_ITEM_TYPES = ("mcp_call", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response")
ITEM_TYPES = frozenset(
    {"message", "function_call", "function_call_output", "reasoning", "item_reference", *SERVER_ITEM_TYPES}
)


def _item_kind(value: object) -> str:
    """Messages and references may omit their type."""
    if not isinstance(value, dict):
        return "(neither)"
    kind = value.get("type")
    if kind is None:
        kind = "item_reference" if "id" in value and "role" not in value else "message"
    return f"({kind})" if isinstance(kind, str) and kind in ITEM_TYPES else "(other)"


Item = Annotated[
    Annotated[MessageItem, Tag("(message)")]
    | Annotated[FunctionCallItem, Tag("(function_call)")]
    | Annotated[FunctionCallOutputItem, Tag("(function_call_output)")]
    | Annotated[ReasoningItem, Tag("(reasoning)")]
    | Annotated[MCPCallItem, Tag("(mcp_call)")]
    | Annotated[MCPListItem, Tag("(mcp_list_tools)")]
    | Annotated[ApprovalRequestItem, Tag("(mcp_approval_request)")]
    | Annotated[ApprovalResponseItem, Tag("(mcp_approval_response)")]
    | Annotated[ItemReference, Tag("(item_reference)")]
    | Annotated[OtherItem, Tag("(other)")],
    Discriminator(_item_kind, custom_error_type="item", custom_error_message="must be an object"),
]

Input = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[list[Item], Field(max_length=MOST_ITEMS), Tag("(list)")],
    by_json_type({str: "(text)", list: "(list)"}, "input", "must be a string or a list of items"),
]
