"""The replies of LM Studio's routes, v0 and v1."""

from typing import Any, Literal

from pydantic import Field, RootModel

from gateway.dialects.documented import KEY, MODEL, Documented, Reply
from gateway.dialects.openai.openai_reply_types import CHAT as OPENAI_CHAT
from gateway.dialects.openai.openai_reply_types import COMPLETION as OPENAI_COMPLETION
from gateway.dialects.openai.openai_reply_types import EMBEDDINGS, ChatChunk, ChatCompletion, TextChunk, TextCompletion


class V0Stats(Reply):
    """Tokens, and seconds."""

    tokens_per_second: float
    time_to_first_token: float
    generation_time: float
    stop_reason: str
    prompt_tokens_count: int
    predicted_tokens_count: int
    total_tokens_count: int
    cached_tokens_count: int
    total_time_sec: float
    num_gpu_layers: int
    stop_string: str | None = None
    draft_model: str | None = None
    total_draft_tokens_count: int | None = None
    accepted_draft_tokens_count: int | None = None
    rejected_draft_tokens_count: int | None = None
    ignored_draft_tokens_count: int | None = None


class V0ModelInfo(Reply):
    arch: str
    quant: str
    format: Literal["gguf"]
    context_length: int


class V0Runtime(Reply):
    name: Literal["lm-atelier"]
    version: str
    supported_formats: list[str]


class V0Chat(ChatCompletion):
    stats: V0Stats
    model_info: V0ModelInfo
    runtime: V0Runtime


class V0ChatChunk(ChatChunk):
    """The last of a choice has the statistics."""

    stats: V0Stats | None = None
    model_info: V0ModelInfo | None = None
    runtime: V0Runtime | None = None


class V0Completion(TextCompletion):
    stats: V0Stats
    model_info: V0ModelInfo
    runtime: V0Runtime


class V0CompletionChunk(TextChunk):
    """The last of a choice has the statistics."""

    stats: V0Stats | None = None
    model_info: V0ModelInfo | None = None
    runtime: V0Runtime | None = None


class V0Model(Reply):
    id: str
    object: Literal["model"]
    type: Literal["llm", "vlm", "embeddings"]
    publisher: str
    arch: str
    compatibility_type: Literal["gguf"]
    quantization: str
    state: Literal["loaded", "not-loaded"]
    max_context_length: int
    capabilities: list[str]
    loaded_context_length: int | None = None


class V0ModelList(Reply):
    object: Literal["list"]
    data: list[V0Model]


class V1Quantization(Reply):
    name: str
    bits_per_weight: float


class V1Instance(Reply):
    id: str
    config: dict[str, Any] = Field(description="Load settings, by LM Studio's names.")


class V1Capabilities(Reply):
    vision: bool
    trained_for_tool_use: bool


class V1Model(Reply):
    type: Literal["llm", "embedding"]
    publisher: str
    key: str
    display_name: str
    architecture: str
    quantization: V1Quantization | None
    size_bytes: int
    params_string: str
    loaded_instances: list[V1Instance]
    max_context_length: int
    format: Literal["gguf"]
    capabilities: V1Capabilities
    layers: int


class V1ModelList(Reply):
    models: list[V1Model]


class LoadedModel(Reply):
    type: Literal["llm", "embedding"]
    instance_id: str
    load_time_seconds: float
    status: Literal["loaded"]
    load_config: dict[str, Any] | None = None


class MemoryBytes(Reply):
    weights: int
    kv_cache: int
    compute: int
    total: int


class EstimatedLoad(Reply):
    model: str
    status: Literal["estimated"]
    memory_bytes: MemoryBytes


class LoadReply(RootModel[LoadedModel | EstimatedLoad]):
    """The estimate where the request asked for that alone."""


class UnloadReply(Reply):
    instance_id: str


class V1Text(Reply):
    type: Literal["message", "reasoning"]
    content: str


class PluginInfo(Reply):
    type: Literal["plugin"]
    plugin_id: str


class EphemeralInfo(Reply):
    type: Literal["ephemeral_mcp"]
    server_label: str


ProviderInfo = PluginInfo | EphemeralInfo


class V1ToolCall(Reply):
    type: Literal["tool_call"]
    tool: str
    arguments: dict[str, Any]
    output: str = Field(description="MCP's content, as the text of a JSON array.")
    provider_info: ProviderInfo


class FailedCall(Reply):
    """Of a tool that there is not, or whose server gave no result."""

    type: Literal["invalid_name", "failed"]
    tool_name: str
    arguments: dict[str, Any] | None = None
    provider_info: ProviderInfo | None = None


class V1InvalidToolCall(Reply):
    type: Literal["invalid_tool_call"]
    reason: str
    metadata: FailedCall


V1Output = V1Text | V1ToolCall | V1InvalidToolCall


class V1Stats(Reply):
    input_tokens: int
    total_output_tokens: int
    reasoning_output_tokens: int
    tokens_per_second: float
    time_to_first_token_seconds: float
    model_load_time_seconds: float | None = None


class V1Chat(Reply):
    model_instance_id: str
    output: list[V1Output]
    stats: V1Stats
    response_id: str | None = None


class ChatStart(Reply):
    type: Literal["chat.start"]
    model_instance_id: str


class ToolCallStart(Reply):
    type: Literal["tool_call.start"]
    tool: str
    provider_info: ProviderInfo


class ToolCallArguments(Reply):
    type: Literal["tool_call.arguments"]
    tool: str
    arguments: dict[str, Any]
    provider_info: ProviderInfo


class ToolCallElicitation(Reply):
    """Ours. The call's server asks the user; `POST /api/v1/mcp/elicitations/{id}` answers."""

    type: Literal["tool_call.elicitation"]
    id: str
    tool: str
    provider_info: ProviderInfo
    message: str
    requested_schema: dict[str, Any] | None = Field(None, description="JSON Schema of the answer's content.")
    url: str | None = Field(None, description="Where the user is to go instead of filling in a form.")


class ToolCallSuccess(Reply):
    type: Literal["tool_call.success"]
    tool: str
    arguments: dict[str, Any]
    output: str
    provider_info: ProviderInfo


class ToolCallFailure(Reply):
    type: Literal["tool_call.failure"]
    reason: str
    metadata: FailedCall


class Mark(Reply):
    type: Literal[
        "prompt_processing.start",
        "prompt_processing.end",
        "reasoning.start",
        "reasoning.end",
        "message.start",
        "message.end",
    ]


class LoadStart(Reply):
    type: Literal["model_load.start"]
    model_instance_id: str


class LoadProgress(Reply):
    type: Literal["model_load.progress"]
    model_instance_id: str
    progress: float = Field(ge=0, le=1)


class LoadEnd(Reply):
    type: Literal["model_load.end"]
    model_instance_id: str
    load_time_seconds: float


class PromptShare(Reply):
    type: Literal["prompt_processing.progress"]
    progress: float = Field(ge=0, le=1)


ToolCallEvent = ToolCallStart | ToolCallArguments | ToolCallElicitation | ToolCallSuccess | ToolCallFailure
LoadEvent = LoadStart | LoadProgress | LoadEnd


class PartDelta(Reply):
    type: Literal["reasoning.delta", "message.delta"]
    content: str


class StreamFault(Reply):
    type: str
    message: str
    code: str | None = None
    param: str | None = None


class ErrorInStream(Reply):
    type: Literal["error"]
    error: StreamFault


class ChatEnd(Reply):
    type: Literal["chat.end"]
    result: V1Chat


class V1ChatEvent(
    RootModel[ChatStart | LoadEvent | Mark | PromptShare | PartDelta | ToolCallEvent | ErrorInStream | ChatEnd]
):
    """The data of one event, whose name is its type."""


STATS = {
    "stats": {
        "tokens_per_second": 26.4,
        "time_to_first_token": 0.092,
        "generation_time": 0.303,
        "stop_reason": "eosFound",
        "prompt_tokens_count": 31,
        "predicted_tokens_count": 9,
        "total_tokens_count": 40,
        "cached_tokens_count": 28,
        "total_time_sec": 0.401,
        "num_gpu_layers": 0,
    },
    "model_info": {"arch": "llama", "quant": "Q4_1", "format": "gguf", "context_length": 4096},
    "runtime": {"name": "lm-atelier", "version": "0.1.0", "supported_formats": ["gguf"]},
}
V0_ENTRY = {
    "id": KEY,
    "object": "model",
    "type": "llm",
    "publisher": "HuggingFaceTB",
    "arch": "llama",
    "compatibility_type": "gguf",
    "quantization": "Q4_1",
    "state": "loaded",
    "max_context_length": 8192,
    "capabilities": [],
    "loaded_context_length": 4096,
}
V1_ENTRY = {
    "type": "llm",
    "publisher": "HuggingFaceTB",
    "key": KEY,
    "display_name": "SmolLM2 135M Instruct",
    "architecture": "llama",
    "quantization": {"name": "Q4_1", "bits_per_weight": 5.85},
    "size_bytes": 98000000,
    "params_string": "135M",
    "loaded_instances": [{"id": KEY, "config": {"context_length": 4096, "parallel": 8}}],
    "max_context_length": 8192,
    "format": "gguf",
    "capabilities": {"vision": False, "trained_for_tool_use": False},
    "layers": 30,
}

DOCUMENTED = {
    "POST /api/v0/chat/completions": Documented(
        reply=V0Chat, events=V0ChatChunk, request=OPENAI_CHAT.request, example={**OPENAI_CHAT.example, **STATS}
    ),
    "POST /api/v0/completions": Documented(
        reply=V0Completion,
        events=V0CompletionChunk,
        request=OPENAI_COMPLETION.request,
        example={**OPENAI_COMPLETION.example, **STATS},
    ),
    "POST /api/v0/embeddings": EMBEDDINGS,
    "GET /api/v0/models": Documented(reply=V0ModelList, example={"object": "list", "data": [V0_ENTRY]}),
    "GET /api/v0/models/{id}": Documented(reply=V0Model, example=V0_ENTRY),
    "POST /api/v1/chat": Documented(
        reply=V1Chat,
        events=V1ChatEvent,
        request={"model": MODEL, "input": "Hi"},
        example={
            "model_instance_id": KEY,
            "output": [{"type": "message", "content": "Hello! How can I help you today?"}],
            "stats": {
                "input_tokens": 31,
                "total_output_tokens": 9,
                "reasoning_output_tokens": 0,
                "tokens_per_second": 26.4,
                "time_to_first_token_seconds": 0.092,
            },
            "response_id": "resp_78e98a27a35b4109842dda5a3d5ccd79",
        },
    ),
    "GET /api/v1/models": Documented(reply=V1ModelList, example={"models": [V1_ENTRY]}),
    "POST /api/v1/models/load": Documented(
        reply=LoadReply,
        request={"model": MODEL, "context_length": 2048},
        example={"type": "llm", "instance_id": f"{KEY}:2", "load_time_seconds": 0.42, "status": "loaded"},
    ),
    "POST /api/v1/models/unload": Documented(
        reply=UnloadReply, request={"instance_id": f"{KEY}:2"}, example={"instance_id": f"{KEY}:2"}
    ),
}
