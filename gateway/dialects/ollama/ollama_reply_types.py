"""The replies of Ollama's routes."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from gateway.dialects.documented import KEY, LINES, MODEL, Documented, Nullable
from gateway.dialects.openai.openai_reply_types import Logprob


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


CREATED = "2026-01-02T03:04:05.000000Z"
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "llama",
    "families": ["llama"],
    "parameter_size": "135M",
    "quantization_level": "Q4_1",
}
DONE = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 450000000,
    "load_duration": 2000000,
    "prompt_eval_count": 31,
    "prompt_eval_duration": 90000000,
    "eval_count": 9,
    "eval_duration": 350000000,
}
ANSWER = "Hello! How can I help you today?"
NAMED = {"name": KEY, "model": KEY}

DOCUMENTED = {
    "POST /api/chat": Documented(
        reply=OllamaChat,
        events=OllamaChat,
        stream=LINES,
        request={"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": False},
        example={"model": KEY, "created_at": CREATED, "message": {"role": "assistant", "content": ANSWER}, **DONE},
    ),
    "POST /api/generate": Documented(
        reply=OllamaGeneration,
        events=OllamaGeneration,
        stream=LINES,
        request={"model": MODEL, "prompt": "Hi", "stream": False},
        example={"model": KEY, "created_at": CREATED, "response": ANSWER, **DONE},
    ),
    "POST /api/embed": Documented(
        reply=OllamaVectors,
        request={"model": "nomic-embed-text-v1.5", "input": ["a fjord"]},
        example={
            "model": "nomic-ai/nomic-embed-text-v1.5",
            "embeddings": [[0.6, 0.8]],
            "total_duration": 8000000,
            "load_duration": 500000,
            "prompt_eval_count": 4,
        },
    ),
    "POST /api/embeddings": Documented(
        reply=OllamaVector,
        request={"model": "nomic-embed-text-v1.5", "prompt": "a fjord"},
        example={"embedding": [0.6, 0.8]},
    ),
    "GET /api/tags": Documented(
        reply=OllamaTags,
        example={"models": [{**NAMED, "modified_at": CREATED, "size": 98000000, "digest": DIGEST, "details": DETAILS}]},
    ),
    "POST /api/show": Documented(
        reply=OllamaModel,
        request={"model": MODEL},
        example={
            "modified_at": CREATED,
            "parameters": "",
            "template": "{% for message in messages %}...{% endfor %}",
            "details": DETAILS,
            "model_info": {"general.architecture": "llama", "general.parameter_count": 134515008},
            "capabilities": ["completion"],
            "license": "apache-2.0",
        },
    ),
    "GET /api/ps": Documented(
        reply=OllamaProcesses,
        example={
            "models": [
                {
                    **NAMED,
                    "size": 190000000,
                    "digest": DIGEST,
                    "details": DETAILS,
                    "expires_at": CREATED,
                    "size_vram": 0,
                    "context_length": 4096,
                }
            ]
        },
    ),
    "POST /api/pull": Documented(
        reply=OllamaProgress,
        events=OllamaProgress,
        stream=LINES,
        request={"model": "hf.co/bartowski/Qwen3-0.6B-GGUF:Q4_K_M", "stream": False},
        example={"status": "success"},
    ),
    "DELETE /api/delete": Documented(media=None, request={"model": MODEL}),
    "GET /api/version": Documented(reply=OllamaVersion, example={"version": "0.12.11", "atelier": "0.1.0"}),
    "HEAD /": Documented(media=None),
}
