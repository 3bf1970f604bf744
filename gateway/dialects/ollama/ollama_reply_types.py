"""The replies of Ollama's routes."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from gateway.dialects.openai.openai_reply_types import Logprob
from gateway.dialects.route import Nullable


class OllamaSaidFunction(TypedDict):
    index: int
    name: str
    arguments: dict[str, Any]


class OllamaSaidCall(TypedDict):
    id: str
    function: OllamaSaidFunction


class OllamaSaidMessage(TypedDict):
    role: Literal["assistant"]
    content: str
    thinking: NotRequired[Nullable[str]]
    tool_calls: NotRequired[Nullable[list[OllamaSaidCall]]]


class OllamaAnswer(TypedDict):
    """Durations are in nanoseconds, and like the counts they are in the last object alone."""

    model: str
    created_at: str
    done: bool
    done_reason: NotRequired[Nullable[Literal["stop", "length", "load", "unload"]]]
    logprobs: NotRequired[Nullable[list[Logprob]]]
    total_duration: NotRequired[Nullable[int]]
    load_duration: NotRequired[Nullable[int]]
    prompt_eval_count: NotRequired[Nullable[int]]
    prompt_eval_duration: NotRequired[Nullable[int]]
    eval_count: NotRequired[Nullable[int]]
    eval_duration: NotRequired[Nullable[int]]


class OllamaChat(OllamaAnswer):
    message: OllamaSaidMessage


class OllamaGeneration(OllamaAnswer):
    response: str
    thinking: NotRequired[Nullable[str]]


class OllamaVectors(TypedDict):
    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaVector(TypedDict):
    embedding: list[float]


class OllamaDetails(TypedDict):
    parent_model: str
    format: Literal["gguf"]
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaTag(TypedDict):
    name: str
    model: str
    modified_at: str
    size: int
    digest: Annotated[
        str, Field(description="Tells the model from others and from an earlier one of its name; not of its file.")
    ]
    details: OllamaDetails


class OllamaTags(TypedDict):
    models: list[OllamaTag]


class OllamaModel(TypedDict):
    modified_at: str
    parameters: str
    template: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[Literal["completion", "embedding", "tools", "thinking", "vision", "insert"]]
    license: NotRequired[Nullable[str]]


class OllamaProcess(TypedDict):
    name: str
    model: str
    size: int
    digest: str
    details: OllamaDetails
    expires_at: str
    size_vram: int
    context_length: int


class OllamaProcesses(TypedDict):
    models: list[OllamaProcess]


class OllamaProgress(TypedDict):
    status: str
    digest: NotRequired[Nullable[str]]
    total: NotRequired[Nullable[int]]
    completed: NotRequired[Nullable[int]]


class OllamaVersion(TypedDict):
    version: str
    atelier: str
