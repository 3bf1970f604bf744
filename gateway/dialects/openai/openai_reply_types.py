"""The replies of OpenAI's routes, and of those that its clients know from llama.cpp, Jina and Cohere."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from gateway.dialects.anthropic.anthropic_model_list import MOST_LISTED
from gateway.dialects.documented import KEY, MODEL, Documented, Nullable

HI = [{"role": "user", "content": "Hi"}]


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


class AnthropicModel(TypedDict):
    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active"]
    max_input_tokens: int
    max_tokens: int


class AnthropicModelList(TypedDict):
    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


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


ANTHROPICS = "Heard where the request has an `anthropic-version` header."
HEAD = {"created": 1795588480, "model": KEY}
USAGE = {
    "prompt_tokens": 31,
    "completion_tokens": 9,
    "total_tokens": 40,
    "prompt_tokens_details": {"cached_tokens": 28},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
ENTRY = {
    "id": KEY,
    "object": "model",
    "created": 1795588000,
    "owned_by": "huggingfacetb",
    "type": "llm",
    "state": "loaded",
    "max_context_length": 8192,
    "capabilities": [],
    "loaded_context_length": 4096,
}

CHAT = Documented(
    reply=ChatCompletion,
    events=ChatChunk,
    request={"model": MODEL, "messages": HI, "max_tokens": 32},
    example={
        "id": "chatcmpl-c40018809b474d50b91661ea21207aa4",
        "object": "chat.completion",
        **HEAD,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello! How can I help you today?", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    },
)
COMPLETION = Documented(
    reply=TextCompletion,
    events=TextChunk,
    request={"model": MODEL, "prompt": "The capital of Norway is", "max_tokens": 4},
    example={
        "id": "cmpl-0fa4e9f8eff54dc797351cf82e5c6e96",
        "object": "text_completion",
        **HEAD,
        "choices": [{"index": 0, "text": " Oslo.", "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
    },
)
EMBEDDINGS = Documented(
    reply=Vectors,
    request={"model": "nomic-embed-text-v1.5", "input": ["a fjord", "a mountain"]},
    example={
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.6, 0.8]},
            {"object": "embedding", "index": 1, "embedding": [0.8, -0.6]},
        ],
        "model": "nomic-ai/nomic-embed-text-v1.5",
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    },
)
RERANK = Documented(
    reply=Ranking,
    request={"model": "bge-reranker-v2-m3", "query": "blue sea", "documents": ["red", "blue sea"], "top_n": 1},
    example={
        "object": "list",
        "model": "baai/bge-reranker-v2-m3",
        "results": [{"index": 1, "relevance_score": 3.5}],
        "usage": {"prompt_tokens": 12, "total_tokens": 12},
    },
)
TOKENIZE = Documented(
    reply=TokenList, request={"model": MODEL, "content": "Hello world"}, example={"tokens": [19556, 905]}
)
DETOKENIZE = Documented(
    reply=WrittenText, request={"model": MODEL, "tokens": [19556, 905]}, example={"content": "Hello world"}
)
APPLY_TEMPLATE = Documented(
    reply=WrittenPrompt,
    request={"model": MODEL, "messages": HI},
    example={"prompt": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"},
)

DOCUMENTED = {
    "POST /v1/chat/completions": CHAT,
    "POST /v1/completions": COMPLETION,
    "POST /v1/embeddings": EMBEDDINGS,
    "POST /v1/rerank": RERANK,
    "POST /rerank": RERANK,
    "POST /tokenize": TOKENIZE,
    "POST /v1/tokenize": TOKENIZE,
    "POST /detokenize": DETOKENIZE,
    "POST /v1/detokenize": DETOKENIZE,
    "POST /apply-template": APPLY_TEMPLATE,
    "POST /v1/apply-template": APPLY_TEMPLATE,
    "GET /v1/models": Documented(
        reply=ListedModels,
        query={
            "limit": {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "description": ANTHROPICS},
            "after_id": {"type": "string", "description": ANTHROPICS},
            "before_id": {"type": "string", "description": ANTHROPICS},
        },
        example={"object": "list", "data": [ENTRY]},
    ),
    "GET /v1/models/{id}": Documented(reply=ListedModel, example=ENTRY),
}
