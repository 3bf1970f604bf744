"""The replies of LM Studio's routes, v0 and v1."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from gateway.dialects.openai.openai_replies import ChatChunk, ChatCompletion, TextChunk, TextCompletion
from gateway.dialects.route import Nullable


class V0Stats(TypedDict):
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
    stop_string: NotRequired[Nullable[str]]
    draft_model: NotRequired[Nullable[str]]
    total_draft_tokens_count: NotRequired[Nullable[int]]
    accepted_draft_tokens_count: NotRequired[Nullable[int]]
    rejected_draft_tokens_count: NotRequired[Nullable[int]]
    ignored_draft_tokens_count: NotRequired[Nullable[int]]


class V0ModelInfo(TypedDict):
    arch: str
    quant: str
    format: Literal["gguf"]
    context_length: int


class V0Runtime(TypedDict):
    name: Literal["lm-atelier"]
    version: str
    supported_formats: list[str]


class V0Chat(ChatCompletion):
    stats: V0Stats
    model_info: V0ModelInfo
    runtime: V0Runtime


class V0ChatChunk(ChatChunk):
    """The last of a choice has the statistics."""

    stats: NotRequired[Nullable[V0Stats]]
    model_info: NotRequired[Nullable[V0ModelInfo]]
    runtime: NotRequired[Nullable[V0Runtime]]


class V0Completion(TextCompletion):
    stats: V0Stats
    model_info: V0ModelInfo
    runtime: V0Runtime


class V0CompletionChunk(TextChunk):
    """The last of a choice has the statistics."""

    stats: NotRequired[Nullable[V0Stats]]
    model_info: NotRequired[Nullable[V0ModelInfo]]
    runtime: NotRequired[Nullable[V0Runtime]]


class V0Model(TypedDict):
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
    loaded_context_length: NotRequired[Nullable[int]]


class V0ModelList(TypedDict):
    object: Literal["list"]
    data: list[V0Model]


class V1Quantization(TypedDict):
    name: str
    bits_per_weight: float


class V1Instance(TypedDict):
    id: str
    config: Annotated[dict[str, Any], Field(description="Load settings, by LM Studio's names.")]


class V1Capabilities(TypedDict):
    vision: bool
    trained_for_tool_use: bool


class V1Model(TypedDict):
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


class V1ModelList(TypedDict):
    models: list[V1Model]


class LoadedModel(TypedDict):
    type: Literal["llm", "embedding"]
    instance_id: str
    load_time_seconds: float
    status: Literal["loaded"]
    load_config: NotRequired[Nullable[dict[str, Any]]]


class MemoryBytes(TypedDict):
    weights: int
    kv_cache: int
    compute: int
    total: int


class EstimatedLoad(TypedDict):
    model: str
    status: Literal["estimated"]
    memory_bytes: MemoryBytes


LoadReply = TypeAliasType(
    "LoadReply",
    Annotated[
        LoadedModel | EstimatedLoad,
        Field(title="LoadReply", description="The estimate where the request asked for that alone."),
    ],
)


class UnloadReply(TypedDict):
    instance_id: str


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


class V1ToolCall(TypedDict):
    type: Literal["tool_call"]
    tool: str
    arguments: dict[str, Any]
    output: Annotated[str, Field(description="MCP's content, as the text of a JSON array.")]
    provider_info: ProviderInfo


class FailedCall(TypedDict):
    """Of a tool that there is not, or whose server gave no result."""

    type: Literal["invalid_name", "failed"]
    tool_name: str
    arguments: NotRequired[Nullable[dict[str, Any]]]
    provider_info: NotRequired[Nullable[ProviderInfo]]


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
    arguments: dict[str, Any]
    provider_info: ProviderInfo


class ToolCallElicitation(TypedDict):
    """Ours. The call's server asks the user; `POST /api/v1/mcp/elicitations/{id}` answers."""

    type: Literal["tool_call.elicitation"]
    id: str
    tool: str
    provider_info: ProviderInfo
    message: str
    requested_schema: NotRequired[
        Annotated[Nullable[dict[str, Any]], Field(description="JSON Schema of the answer's content.")]
    ]
    url: NotRequired[
        Annotated[Nullable[str], Field(description="Where the user is to go instead of filling in a form.")]
    ]


class ToolCallSuccess(TypedDict):
    type: Literal["tool_call.success"]
    tool: str
    arguments: dict[str, Any]
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


ToolCallEvent = ToolCallStart | ToolCallArguments | ToolCallElicitation | ToolCallSuccess | ToolCallFailure
LoadEvent = LoadStart | LoadProgress | LoadEnd


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


V1ChatEvent = TypeAliasType(
    "V1ChatEvent",
    Annotated[
        ChatStart | LoadEvent | Mark | PromptShare | PartDelta | ToolCallEvent | ErrorInStream | ChatEnd,
        Field(title="V1ChatEvent", description="The data of one event, whose name is its type."),
    ],
)
