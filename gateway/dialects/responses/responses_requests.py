"""The body of POST /v1/responses. Unknown fields are ignored."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from atelier.json_types import Json
from atelier.settings import TABLE
from atelier.settings.settings_schema import fields_model
from atelier.submission import MOST_LOGPROBS
from gateway.dialects.body import Body, ServingFields
from gateway.dialects.openai.mcp_tool import Label, MCPTool
from gateway.dialects.requested_reasoning import RequestedReasoning
from gateway.dialects.responses.item_requests import Input, ServerToolName

MOST_TOOLS = 512
MAX_TOKENS = "max_tokens"  # max_output_tokens here

Sampling = fields_model(
    "ResponseSampling",
    (
        (row.facts.openai, row)
        for row in TABLE["inference"].values()
        if row.facts.openai and row.name not in (MAX_TOKENS, "context_overflow")
    ),
)

FunctionName = Annotated[str, Field(pattern="^[a-zA-Z0-9_.-]{1,128}$")]


class FunctionTool(Body):
    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: Json | None = Field(None, description="JSON Schema of the arguments, an object.")
    strict: bool | None = Field(None, description="Reject a schema that cannot be enforced completely.")


class OtherTool(Body):
    """A tool of an unsupported type, which the error names."""

    type: str


def _tool_kind(value: object) -> str:
    if not isinstance(value, dict):
        return "(neither)"
    kind = value.get("type")
    return f"({kind})" if kind in ("function", "mcp") else "(other)"


ToolEntry = Annotated[
    Annotated[FunctionTool, Tag("(function)")]
    | Annotated[MCPTool, Tag("(mcp)")]
    | Annotated[OtherTool, Tag("(other)")],
    Discriminator(_tool_kind, custom_error_type="tool", custom_error_message="must be an object"),
]


class NamedFunction(Body):
    type: Literal["function"]
    name: str


class ChosenServer(Body):
    """One of a server's tools must be called: the named one, or any."""

    type: Literal["mcp"]
    server_label: Label
    name: ServerToolName | None = None


class ToolReference(Body):
    """A function by its name, or a server's tool by label and name; without a name all of its tools."""

    type: str
    name: str | None = None
    server_label: str | None = None


class AllowedFunctions(Body):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolReference], Field(min_length=1, max_length=MOST_TOOLS)]


def _choice_kind(value: object) -> str:
    if isinstance(value, str):
        return "(word)"
    kind = value.get("type") if isinstance(value, dict) else None
    known = ("function", "mcp", "allowed_tools")
    return f"({kind})" if kind in known else "(other)" if isinstance(kind, str) else "(neither)"


Choice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("(word)")]
    | Annotated[NamedFunction, Tag("(function)")]
    | Annotated[ChosenServer, Tag("(mcp)")]
    | Annotated[AllowedFunctions, Tag("(allowed_tools)")]
    | Annotated[OtherTool, Tag("(other)")],
    Discriminator(
        _choice_kind,
        custom_error_type="tool_choice",
        custom_error_message='must be "none", "auto", "required", or an object with a type',
    ),
]


class TextFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: Json | None = Field(None, alias="schema", description="JSON Schema of the answer.")
    strict: bool | None = None
    description: str | None = None


class TextSettings(Body):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningSettings(RequestedReasoning):
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class ResponseBody(Sampling, ServingFields):  # type: ignore[misc, valid-type]
    model: str = Field(description="Key of a model, its short form, or the id of an instance.")
    input: Input
    instructions: str | None = Field(None, description="A system message for this response only.")
    previous_response_id: str | None = Field(None, description="The stored response that this one continues.")
    store: bool | None = Field(
        None, description="Store the response, so that it can be retrieved and continued. Default: true."
    )
    stream: bool | None = None
    background: bool | None = Field(None, description="Return at once; the response can be retrieved later.")

    tools: Annotated[list[ToolEntry], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Maximum calls of servers' tools in this response; after that the model answers without them."
    )

    text: TextSettings | None = None
    reasoning: ReasoningSettings | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description="auto: the oldest messages are dropped if the prompt does not fit."
    )
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    include: Annotated[list[str], Field(max_length=32)] | None = None

    metadata: Metadata | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None

    conversation: object = Field(None, description="Not supported: use previous_response_id.")
    prompt: object = Field(None, description="Not supported.")
    moderation: object = Field(None, description="Not supported.")
