"""The HTTP application: every route."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from atelier import __version__
from atelier.config import Config
from atelier.errors import (
    AlreadyExists,
    AtelierError,
    BodyTooSlow,
    Conflict,
    DeadlineExceeded,
    DiskFull,
    DownloadNotFound,
    Forbidden,
    HubAccessDenied,
    HubUnavailable,
    InstanceNotFound,
    InvalidRequest,
    LoadFailed,
    MCPConnectionError,
    ModelNotFound,
    NotFound,
    PayloadTooLarge,
    PresetNotFound,
    PreviousResponseNotFound,
    ResponseNotFound,
    Unauthenticated,
    Unavailable,
    WorkerLost,
)
from atelier.metrics import GatewayMetrics
from gateway.core.admission import Admission
from gateway.dialects.anthropic.anthropic_requests import CountTokensBody, MessagesBody
from gateway.dialects.anthropic.anthropic_routes import AnthropicRoutes, by_client
from gateway.dialects.lmstudio.lmstudio_chat_routes import LMStudioChatRoutes
from gateway.dialects.lmstudio.lmstudio_requests import LoadBody, UnloadBody, V0ChatBody, V0CompletionBody, V1ChatBody
from gateway.dialects.lmstudio.lmstudio_routes import LMStudioRoutes
from gateway.dialects.lmstudio_sdk.sdk_namespaces import PATHS, SDKSockets
from gateway.dialects.mcp.mcp_reply_types import OTHER_REPLIES, MCPMessage
from gateway.dialects.mcp.mcp_routes import MCPRoutes
from gateway.dialects.native.download_routes import DownloadRoutes
from gateway.dialects.native.elicitation_routes import ElicitationBody, ElicitationRoutes
from gateway.dialects.native.health_routes import HealthRoutes
from gateway.dialects.native.mcp_server_routes import ServerRoutes
from gateway.dialects.native.native_requests import (
    DefaultPresetBody,
    DownloadBody,
    DuplicateBody,
    ImportBody,
    ModelBody,
    PresetBody,
    PresetChangeBody,
    PresetImportBody,
    ReplicasBody,
)
from gateway.dialects.native.native_routes import ManagementRoutes
from gateway.dialects.native.preset_routes import PresetRoutes
from gateway.dialects.ollama.ollama_requests import (
    OllamaChatBody,
    OllamaEmbedBody,
    OllamaEmbeddingsBody,
    OllamaGenerateBody,
    OllamaModelBody,
    OllamaPullBody,
)
from gateway.dialects.ollama.ollama_routes import OllamaRoutes
from gateway.dialects.openai.openai_requests import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    EmbeddingBody,
    RerankBody,
    TokenizeBody,
)
from gateway.dialects.openai.openai_routes import OpenAIRoutes
from gateway.dialects.openapi import body_of, describe, error_replies
from gateway.dialects.responses.responses_requests import ResponseBody
from gateway.dialects.responses.responses_routes import ResponseRoutes
from gateway.http.disconnect import ClientGone, handle_client_gone
from gateway.http.error_responses import handle_error, handle_http_exception
from gateway.http.guards import GREETING
from gateway.middleware import layers

Endpoint = Callable[[Request], Awaitable[Response]]

ALWAYS = (Unauthenticated, Forbidden, Unavailable)
HUB = (InvalidRequest, NotFound, HubAccessDenied, HubUnavailable)
INFERENCE = (*ALWAYS, InvalidRequest, ModelNotFound, PayloadTooLarge, LoadFailed, WorkerLost, DeadlineExceeded)
HOSTED = (*INFERENCE, MCPConnectionError)  # answers that may call tools of MCP servers


@dataclass(frozen=True, slots=True)
class Routes:
    """The endpoints, by the dialect that they belong to."""

    openai: OpenAIRoutes
    anthropic: AnthropicRoutes
    responses: ResponseRoutes
    lmstudio: LMStudioRoutes
    ollama: OllamaRoutes
    lmstudio_chat: LMStudioChatRoutes
    sdk: SDKSockets
    management: ManagementRoutes
    downloads: DownloadRoutes
    presets: PresetRoutes
    mcp_servers: ServerRoutes
    elicitations: ElicitationRoutes
    mcp: MCPRoutes
    health: HealthRoutes


def create_app(config: Config, routes: Routes, admission: Admission, metrics: GatewayMetrics) -> FastAPI:
    app = FastAPI(
        title="LM Atelier",
        version=__version__,
        description="Local models behind OpenAI's, Anthropic's, LM Studio's and Ollama's REST.",
        redoc_url=None,
        middleware=layers(config, admission, metrics),
        exception_handlers={
            AtelierError: handle_error,
            HTTPException: handle_http_exception,
            ClientGone: handle_client_gone,
            ClientDisconnect: handle_client_gone,  # while its body was read
        },
        redirect_slashes=False,
    )
    _add_routes(app, routes)
    return app


def _add_routes(app: FastAPI, routes: Routes) -> None:
    bodies: list[type[BaseModel]] = []

    def get(path: str, endpoint: Endpoint, summary: str, *errors: type[AtelierError]) -> None:
        _add(app, "GET", path, endpoint, summary, (*ALWAYS, *errors))

    def write(
        method: str, path: str, endpoint: Endpoint, body: type[BaseModel], summary: str, *errors: type[AtelierError]
    ) -> None:
        bodies.append(body)
        _add(
            app,
            method,
            path,
            endpoint,
            summary,
            (*ALWAYS, InvalidRequest, BodyTooSlow, *errors),
            openapi_extra=body_of(body),
        )

    def act(path: str, endpoint: Endpoint, summary: str) -> None:
        _add(app, "POST", path, endpoint, summary, (*ALWAYS, InvalidRequest, DownloadNotFound))

    def post(
        path: str, endpoint: Endpoint, body: type[BaseModel], summary: str, errors: tuple[type[AtelierError], ...]
    ) -> None:
        write("POST", path, endpoint, body, summary, *errors)

    anthropic = routes.anthropic
    openai, lmstudio, ours, health = routes.openai, routes.lmstudio, routes.management, routes.health
    downloads, presets = routes.downloads, routes.presets

    post("/v1/chat/completions", openai.chat_completions, ChatBody, "Answer a chat (OpenAI)", HOSTED)
    post("/v1/completions", openai.completions, CompletionBody, "Continue a text (OpenAI)", INFERENCE)
    response, responses = "/v1/responses/{id}", routes.responses
    errors = (*HOSTED, PreviousResponseNotFound)
    post("/v1/responses", responses.create, ResponseBody, "Answer, and keep the answer (OpenAI)", errors)
    get(response, responses.get, "One stored response (OpenAI)", ResponseNotFound, InvalidRequest)
    _add(app, "DELETE", response, responses.delete, "Delete a stored response (OpenAI)", (*ALWAYS, ResponseNotFound))
    get(
        f"{response}/input_items",
        responses.input_items,
        "What a response answered (OpenAI)",
        *(ResponseNotFound, InvalidRequest),
    )
    _add(
        app,
        "POST",
        f"{response}/cancel",
        responses.cancel,
        "Stop a response in the background (OpenAI)",
        (*ALWAYS, InvalidRequest, ResponseNotFound),
    )
    post("/v1/embeddings", openai.embeddings, EmbeddingBody, "Texts to vectors (OpenAI)", INFERENCE)
    for path in ("/v1/rerank", "/rerank"):
        post(path, openai.rerank, RerankBody, "Documents by how well they answer a query (Jina, Cohere)", INFERENCE)
    for prefix in ("", "/v1"):
        post(f"{prefix}/tokenize", openai.tokenize, TokenizeBody, "Text to tokens (llama.cpp)", INFERENCE)
        post(f"{prefix}/detokenize", openai.detokenize, DetokenizeBody, "Tokens to text (llama.cpp)", INFERENCE)
        post(f"{prefix}/apply-template", openai.apply_template, ChatBody, "A chat's prompt (llama.cpp)", INFERENCE)
    list_models = by_client(anthropic.list_models, openai.list_models)
    get_model = by_client(anthropic.get_model, openai.get_model)
    get("/v1/models", list_models, "List what requests may name (OpenAI, Anthropic)", InvalidRequest)
    get("/v1/models/{id:path}", get_model, "One model (OpenAI, Anthropic)", ModelNotFound)

    post("/v1/messages", anthropic.messages, MessagesBody, "Answer a chat (Anthropic)", INFERENCE)
    post(
        "/v1/messages/count_tokens",
        anthropic.count_tokens,
        CountTokensBody,
        "Count the tokens of a chat (Anthropic)",
        INFERENCE,
    )

    post(
        "/api/v0/chat/completions",
        lmstudio.v0_chat_completions,
        V0ChatBody,
        "Answer a chat, with statistics",
        HOSTED,
    )
    post(
        "/api/v0/completions",
        lmstudio.v0_completions,
        V0CompletionBody,
        "Continue a text, with statistics",
        INFERENCE,
    )
    post("/api/v0/embeddings", openai.embeddings, EmbeddingBody, "Texts to vectors (LM Studio v0)", INFERENCE)
    get("/api/v0/models", lmstudio.v0_list_models, "List all models (LM Studio v0)")
    get("/api/v0/models/{id:path}", lmstudio.v0_get_model, "One model (LM Studio v0)", ModelNotFound)

    ollama = routes.ollama
    post("/api/chat", ollama.chat, OllamaChatBody, "Answer a chat (Ollama)", INFERENCE)
    post("/api/generate", ollama.generate, OllamaGenerateBody, "Answer a prompt (Ollama)", INFERENCE)
    post("/api/embed", ollama.embed, OllamaEmbedBody, "Texts to vectors (Ollama)", INFERENCE)
    post("/api/embeddings", ollama.embeddings, OllamaEmbeddingsBody, "A text to a vector (Ollama, older)", INFERENCE)
    get("/api/tags", ollama.tags, "List what requests may name (Ollama)")
    post("/api/show", ollama.show, OllamaModelBody, "What is known of a model (Ollama)", (ModelNotFound,))
    get("/api/ps", ollama.processes, "List what is loaded (Ollama)")
    post("/api/pull", ollama.pull, OllamaPullBody, "Download a model from the hub (Ollama)", (*HUB, DiskFull))
    write("DELETE", "/api/delete", ollama.delete, OllamaModelBody, "Delete a model (Ollama)", ModelNotFound, Conflict)
    get("/api/version", ollama.version, "Which of Ollama's APIs this is")
    _add(app, "HEAD", "/", ollama.head, "Whether a server is here (Ollama)", ALWAYS, response_class=Response)

    post(
        "/api/v1/chat",
        routes.lmstudio_chat.chat,
        V1ChatBody,
        "Answer a chat that the server keeps (LM Studio v1)",
        (*HOSTED, ResponseNotFound),
    )
    get("/api/v1/models", lmstudio.v1_list_models, "List all models (LM Studio v1)")
    post(
        "/api/v1/models/load",
        lmstudio.v1_load,
        LoadBody,
        "Load a model: one more instance",
        (ModelNotFound, AlreadyExists, LoadFailed),
    )
    post("/api/v1/models/unload", lmstudio.v1_unload, UnloadBody, "Unload an instance", (InstanceNotFound,))

    get("/api/v1/models/search", downloads.search, "Search the hub for GGUF models", *HUB)
    post(
        "/api/v1/models/download",
        downloads.start,
        DownloadBody,
        "Download a model from the hub (LM Studio v1)",
        (*HUB, DiskFull),
    )
    get("/api/v1/models/download/status/{job_id}", downloads.status, "How far a download is", DownloadNotFound)
    get("/api/v1/models/downloads", downloads.list, "List the downloads")
    act("/api/v1/models/download/{job_id}/{action}", downloads.act, "Pause, resume or cancel a download")
    post("/api/v1/models/import", ours.import_model, ImportBody, "Import a GGUF file", (AlreadyExists,))
    post("/api/v1/models/remove", ours.remove_model, ModelBody, "Delete a model's files", (ModelNotFound, Conflict))
    post(
        "/api/v1/models/verify",
        ours.verify_model,
        ModelBody,
        "Hold a model's files against their digests",
        (ModelNotFound,),
    )
    get("/api/v1/instances", ours.list_instances, "List the instances")
    get(
        "/api/v1/instances/{id:path}/sequences",
        ours.list_sequences,
        "What an instance has in work",
        *(InstanceNotFound, WorkerLost, DeadlineExceeded),
    )
    get("/api/v1/devices", ours.list_devices, "What models can be put on")
    get("/api/v1/disk", ours.measure_disk, "How much room the server's files take")
    get("/api/v1/status", ours.status, "How the server is")

    preset = "/api/v1/presets/{name}"
    get("/api/v1/presets", presets.list, "List the presets")
    post("/api/v1/presets/import", presets.import_file, PresetImportBody, "Import a preset", (AlreadyExists,))
    get(preset, presets.get, "One preset, or an earlier version of it", PresetNotFound)
    write("PUT", preset, presets.put, PresetBody, "Create a preset, or replace it", Conflict)
    write("PATCH", preset, presets.patch, PresetChangeBody, "Change some of a preset", PresetNotFound, Conflict)
    _add(app, "DELETE", preset, presets.delete, "Delete a preset", (*ALWAYS, PresetNotFound, Conflict))
    get(f"{preset}/versions", presets.versions, "Every version of a preset", PresetNotFound)
    get(f"{preset}/diff", presets.diff, "How a preset differs from another", PresetNotFound, InvalidRequest)
    get(f"{preset}/export", presets.export, "A preset as a file", PresetNotFound, InvalidRequest)
    post(f"{preset}/duplicate", presets.duplicate, DuplicateBody, "Copy a preset", (PresetNotFound, AlreadyExists))
    post(
        "/api/v1/models/default-preset",
        presets.set_default,
        DefaultPresetBody,
        "Choose a model's default preset",
        (ModelNotFound, PresetNotFound),
    )
    post(
        "/api/v1/models/replicas",
        ours.set_replicas,
        ReplicasBody,
        "Choose how many instances a model has",
        (ModelNotFound,),
    )
    get("/api/v1/models/{id:path}/info", ours.describe_model, "All that is known of a model", ModelNotFound)
    get("/api/v1/models/{id:path}/settings", presets.settings, "A model's settings, with their origins", ModelNotFound)

    servers = routes.mcp_servers
    get("/api/v1/mcp/servers", servers.list, "The MCP servers whose tools models use")
    _add(
        app,
        "POST",
        "/api/v1/mcp/servers/{label}/test",
        servers.test,
        "Try an MCP server, and list its tools",
        (*ALWAYS, NotFound, MCPConnectionError),
    )
    post(
        "/api/v1/mcp/elicitations/{id}",
        routes.elicitations.answer,
        ElicitationBody,
        "Answer what an MCP server asks the user",
        (NotFound, PayloadTooLarge),
    )
    bodies.append(MCPMessage)
    _add(
        app,
        "POST",
        "/mcp",
        routes.mcp.post,
        "A message to the MCP server",
        (*ALWAYS, InvalidRequest, BodyTooSlow),
        openapi_extra={**body_of(MCPMessage), "responses": OTHER_REPLIES},
    )

    get(GREETING, routes.sdk.greet, "Whether LM Studio's SDK may connect")
    for path in PATHS:
        app.add_api_websocket_route(path, routes.sdk.serve)

    plain = PlainTextResponse
    _add(app, "GET", "/healthz", health.alive, "Whether the process is alive", ALWAYS, response_class=plain)
    _add(app, "GET", "/readyz", health.ready, "Whether to send requests here", ALWAYS, response_class=plain)
    get("/metrics", health.metrics, "Metrics for Prometheus")

    describe(app, bodies)


def _add(
    app: FastAPI,
    method: str,
    path: str,
    endpoint: Endpoint,
    summary: str,
    errors: tuple[type[AtelierError], ...],
    **more: Any,
) -> None:
    app.add_api_route(
        path,
        endpoint,
        methods=[method],
        summary=summary,
        response_model=None,
        responses=error_replies(path, *dict.fromkeys(errors)),
        **more,
    )
