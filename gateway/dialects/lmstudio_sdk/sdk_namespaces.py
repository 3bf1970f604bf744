"""The SDK protocol's sockets: which are open, and what each namespace offers."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from atelier.metrics import GatewayMetrics
from gateway.core.admission import Admission
from gateway.dialects.lmstudio_sdk.sdk_calls import ModelCalls, upload_image
from gateway.dialects.lmstudio_sdk.sdk_connection import Socket, check_key
from gateway.dialects.lmstudio_sdk.sdk_context import Namespace, taking
from gateway.dialects.lmstudio_sdk.sdk_frames import (
    DownloadOptionsParameter,
    DownloadParameter,
    EmbedParameter,
    GetOrLoadParameter,
    LoadModelParameter,
    ModelInfoParameter,
    PredictParameter,
    SearchParameter,
    SpecifierParameter,
    TemplateParameter,
    TextParameter,
    UnloadParameter,
    UploadParameter,
)
from gateway.dialects.lmstudio_sdk.sdk_loading import LoadChannels
from gateway.dialects.lmstudio_sdk.sdk_prediction import PredictChannel
from gateway.dialects.lmstudio_sdk.sdk_repository import RepositoryEndpoints
from gateway.dialects.native.machine_replies import Greeting
from gateway.dialects.reply import json_response
from gateway.dialects.route import Route, SocketRoute
from gateway.fleet.watcher import Watcher
from gateway.http.guards import GREETING, ServerKey

PATHS = ("/system", "/llm", "/embedding", "/files", "/repository")


class SDKSockets:
    """Owns the open sockets."""

    tag: ClassVar[str] = "Management"

    def __init__(
        self,
        calls: ModelCalls,
        loading: LoadChannels,
        predictions: PredictChannel,
        repositories: RepositoryEndpoints,
        key: ServerKey | None,
        watcher: Watcher,
        admission: Admission,
        metrics: GatewayMetrics,
    ) -> None:
        """`key`: None if the server requires none."""
        self._namespaces = {each.name: each for each in namespaces(calls, loading, predictions, repositories)}
        self._check_key = partial(check_key, key)
        self._parts = (watcher, admission, metrics)
        self._open: set[Socket] = set()

    def routes(self) -> Sequence[Route | SocketRoute]:
        return (
            Route(f"GET {GREETING}", self.greet, "Whether LM Studio's SDK may connect", reply=Greeting),
            *(SocketRoute(path, self.serve) for path in PATHS),
        )

    async def greet(self, request: Request) -> Response:
        """The reply by which a client recognises a server of LM Studio's kind."""
        return json_response({"lmstudio": True})

    async def serve(self, websocket: WebSocket) -> None:
        namespace = self._namespaces[websocket.scope["path"].removeprefix("/")]
        socket = Socket(websocket, namespace, self._check_key, *self._parts)
        self._open.add(socket)
        try:
            await socket.run()
        finally:
            self._open.discard(socket)

    async def drain(self) -> None:
        """Close all sockets, once the errors of their failed work are sent."""
        await asyncio.gather(*(socket.drain() for socket in self._open))


def namespaces(
    calls: ModelCalls, loading: LoadChannels, predictions: PredictChannel, repositories: RepositoryEndpoints
) -> list[Namespace]:
    models = {
        "listLoaded": calls.list_loaded,
        "getModelInfo": taking(ModelInfoParameter, calls.get_model_info),
        "getLoadConfig": taking(SpecifierParameter, calls.get_load_config),
        "unloadModel": taking(UnloadParameter, calls.unload),
        "tokenize": taking(TextParameter, calls.tokenize),
        "countTokens": taking(TextParameter, calls.count_tokens),
    }
    loads = {
        "getOrLoad": taking(GetOrLoadParameter, loading.get_or_load),
        "loadModel": taking(LoadModelParameter, loading.load_model),
    }
    return [
        Namespace("system", "llm", {"listDownloadedModels": calls.list_downloaded}),
        Namespace(
            "llm",
            "llm",
            {**models, "applyPromptTemplate": taking(TemplateParameter, calls.apply_prompt_template)},
            {**loads, "predict": taking(PredictParameter, predictions.predict)},
        ),
        Namespace("embedding", "embedding", {**models, "embedString": taking(EmbedParameter, calls.embed)}, loads),
        Namespace("files", "llm", {"uploadFileBase64": taking(UploadParameter, upload_image)}, one_by_one=True),
        Namespace(
            "repository",
            "llm",
            {
                "searchModels": taking(SearchParameter, repositories.search),
                "getModelDownloadOptions": taking(DownloadOptionsParameter, repositories.download_options),
            },
            {"downloadModel": taking(DownloadParameter, repositories.download)},
        ),
    ]
