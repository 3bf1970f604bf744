"""The replies of OpenAI's routes, and of those that its clients know from llama.cpp, Jina and Cohere."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from gateway.dialects.anthropic.anthropic_model_list import AnthropicModel, AnthropicModelList
from gateway.dialects.route import Nullable


class TopLogprob(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class Logprob(TopLogprob):
    """Of a token: natural logarithm of its probability before penalties, constraints and temperature."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    content: list[Logprob]
    refusal: NotRequired[Nullable[None]]


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


class TextLogprobs(TypedDict):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


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


class PromptUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class Vector(TypedDict):
    object: Literal["embedding"]
    index: int
    embedding: Annotated[
        list[float] | str, Field(description="Of unit length; base64 of little-endian float32 if asked for.")
    ]


class Vectors(TypedDict):
    object: Literal["list"]
    data: list[Vector]
    model: str
    usage: PromptUsage


class RankedDocument(TypedDict):
    index: int
    relevance_score: float
    document: NotRequired[Nullable[dict[str, Any]]]


class Ranking(TypedDict):
    object: Literal["list"]
    model: str
    results: Annotated[list[RankedDocument], Field(description="The best first.")]
    usage: PromptUsage


class TokenPiece(TypedDict):
    id: int
    piece: Annotated[str | list[int], Field(description="Its bytes, where they are no whole text.")]


class TokenList(TypedDict):
    tokens: list[int] | list[TokenPiece]


class WrittenText(TypedDict):
    content: str


class WrittenPrompt(TypedDict):
    prompt: str


class ModelObject(TypedDict):
    """OpenAI's four fields, then what else clients want to know."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    type: Literal["llm", "vlm", "embeddings"]
    state: Literal["loaded", "not-loaded"]
    max_context_length: int
    capabilities: list[str]
    loaded_context_length: NotRequired[Nullable[int]]


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[ModelObject]


ListedModels = TypeAliasType(
    "ListedModels",
    Annotated[
        ModelList | AnthropicModelList,
        Field(
            title="ListedModels", description="Anthropic's list where the request has an `anthropic-version` header."
        ),
    ],
)


ListedModel = TypeAliasType(
    "ListedModel",
    Annotated[
        ModelObject | AnthropicModel,
        Field(
            title="ListedModel", description="Anthropic's object where the request has an `anthropic-version` header."
        ),
    ],
)
