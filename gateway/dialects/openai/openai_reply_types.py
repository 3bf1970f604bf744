"""The replies of OpenAI's routes, and of those that its clients know from llama.cpp, Jina and Cohere."""

from typing import Any, Literal

from pydantic import Field, RootModel

from gateway.dialects.anthropic.anthropic_model_list import MOST_LISTED
from gateway.dialects.documented import KEY, MODEL, Documented, Reply

HI = [{"role": "user", "content": "Hi"}]


class TopLogprob(Reply):
    token: str
    logprob: float
    bytes: list[int]


class Logprob(TopLogprob):
    """Of a token: natural logarithm of its probability before penalties, constraints and temperature."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Reply):
    content: list[Logprob]
    refusal: None = None


class FunctionCall(Reply):
    name: str
    arguments: str = Field(description="JSON, unless the answer's limit cut it off.")


class ToolCall(Reply):
    id: str
    type: Literal["function"]
    function: FunctionCall


class MCPCall(Reply):
    """A call of an MCP server's tool, which the gateway has run."""

    id: str
    type: Literal["mcp_call"]
    server_label: str
    name: str
    arguments: str
    status: Literal["completed", "failed"]
    output: str | None
    error: str | None


class MCPCallDelta(Reply):
    """Of the call with the same index: its head first, then pieces of its arguments, then what came of it."""

    index: int
    id: str | None = None
    type: Literal["mcp_call"] | None = None
    server_label: str | None = None
    name: str | None = None
    arguments: str | None = None
    status: Literal["completed", "failed"] | None = None
    output: str | None = None
    error: str | None = None


class MCPElicitation(Reply):
    """What a call's server asks the user; `POST /api/v1/mcp/elicitations/{id}` answers."""

    id: str
    server_label: str
    name: str
    message: str
    requested_schema: dict[str, Any] | None = Field(None, description="JSON Schema of the answer's content.")
    url: str | None = Field(None, description="Where the user is to go instead of filling in a form.")


class AssistantMessage(Reply):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None
    mcp_calls: list[MCPCall] | None = Field(None, description="Ours: of tools of type mcp.")


FinishReason = Literal["stop", "length", "tool_calls", "function_call"]


class ChatChoice(Reply):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class PromptTokensDetails(Reply):
    cached_tokens: int


class CompletionTokensDetails(Reply):
    reasoning_tokens: int


class Usage(Reply):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class ChatCompletion(Reply):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class FunctionCallDelta(Reply):
    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(Reply):
    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCallDelta


class ChatDelta(Reply):
    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    function_call: FunctionCallDelta | None = None
    mcp_calls: list[MCPCallDelta] | None = Field(None, description="Ours: of tools of type mcp.")
    mcp_elicitations: list[MCPElicitation] | None = Field(None, description="Ours: with `elicitation`.")


class ChatChunkChoice(Reply):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class PromptProgress(Reply):
    """How far the prompt is: tokens of it, those taken from the cache, and those that are computed."""

    total: int
    cache: int
    processed: int
    time_ms: int


class ChatChunk(Reply):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    prompt_progress: PromptProgress | None = None


class TextLogprobs(Reply):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class TextChoice(Reply):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None = Field(description="null in a stream, until its last chunk.")


class TextCompletion(Reply):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class TextChunk(Reply):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None
    prompt_progress: PromptProgress | None = None


class PromptUsage(Reply):
    prompt_tokens: int
    total_tokens: int


class Vector(Reply):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="Of unit length; base64 of little-endian float32 if asked for.")


class Vectors(Reply):
    object: Literal["list"]
    data: list[Vector]
    model: str
    usage: PromptUsage


class RankedDocument(Reply):
    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class Ranking(Reply):
    object: Literal["list"]
    model: str
    results: list[RankedDocument] = Field(description="The best first.")
    usage: PromptUsage


class TokenPiece(Reply):
    id: int
    piece: str | list[int] = Field(description="Its bytes, where they are no whole text.")


class TokenList(Reply):
    tokens: list[int] | list[TokenPiece]


class WrittenText(Reply):
    content: str


class WrittenPrompt(Reply):
    prompt: str


class ModelObject(Reply):
    """OpenAI's four fields, then what else clients want to know."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    type: Literal["llm", "vlm", "embeddings"]
    state: Literal["loaded", "not-loaded"]
    max_context_length: int
    capabilities: list[str]
    loaded_context_length: int | None = None


class ModelList(Reply):
    object: Literal["list"]
    data: list[ModelObject]


class AnthropicModel(Reply):
    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active"]
    max_input_tokens: int
    max_tokens: int


class AnthropicModelList(Reply):
    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


class ListedModels(RootModel[ModelList | AnthropicModelList]):
    """Anthropic's list where the request has an `anthropic-version` header."""


class ListedModel(RootModel[ModelObject | AnthropicModel]):
    """Anthropic's object where the request has an `anthropic-version` header."""


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
