"""LM Studio's SDK protocol: the sockets that are open, and what each namespace offers."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from atelier.metrics import GatewayMetrics
from gateway.core.admission import Admission
from gateway.dialects.lmstudio_sdk.sdk_auth import SocketKey
from gateway.dialects.lmstudio_sdk.sdk_calls import Calls
from gateway.dialects.lmstudio_sdk.sdk_connection import Socket
from gateway.dialects.lmstudio_sdk.sdk_context import Namespace
from gateway.dialects.lmstudio_sdk.sdk_files import upload_image
from gateway.dialects.lmstudio_sdk.sdk_loading import Loading
from gateway.dialects.lmstudio_sdk.sdk_prediction import Predictions
from gateway.dialects.lmstudio_sdk.sdk_repository import Repositories
from gateway.dialects.reply import json_response
from gateway.fleet.watcher import Watcher
from gateway.http.guards import ServerKey

PATHS = ("/system", "/llm", "/embedding", "/files", "/repository")


class SDKSockets:
    """Owns the open sockets."""

    def __init__(
        self,
        calls: Calls,
        loading: Loading,
        predictions: Predictions,
        repositories: Repositories,
        key: ServerKey | None,
        watcher: Watcher,
        admission: Admission,
        metrics: GatewayMetrics,
    ) -> None:
        self._namespaces = {each.name: each for each in namespaces(calls, loading, predictions, repositories)}
        self._key = SocketKey(key)
        self._parts = (watcher, admission, metrics)
        self._open: set[Socket] = set()

    async def greet(self, request: Request) -> Response:
        """By this a client knows that it talks to a server of the kind."""
        return json_response({"lmstudio": True})

    async def serve(self, websocket: WebSocket) -> None:
        namespace = self._namespaces[websocket.scope["path"].removeprefix("/")]
        socket = Socket(websocket, namespace, self._key.check, *self._parts)
        self._open.add(socket)
        try:
            await socket.run()
        finally:
            self._open.discard(socket)

    async def drain(self) -> None:
        """Close them all, once the work that was failed has told its clients."""
        await asyncio.gather(*(socket.drain() for socket in self._open))


def namespaces(calls: Calls, loading: Loading, predictions: Predictions, repositories: Repositories) -> list[Namespace]:
    models = {
        "listLoaded": calls.list_loaded,
        "getModelInfo": calls.get_model_info,
        "getLoadConfig": calls.get_load_config,
        "unloadModel": calls.unload,
        "tokenize": calls.tokenize,
        "countTokens": calls.count_tokens,
    }
    loads = {"getOrLoad": loading.get_or_load, "loadModel": loading.load_model}
    return [
        Namespace("system", "llm", {"listDownloadedModels": calls.list_downloaded}),
        Namespace(
            "llm",
            "llm",
            {**models, "applyPromptTemplate": calls.apply_prompt_template},
            {**loads, "predict": predictions.predict},
        ),
        Namespace("embedding", "embedding", {**models, "embedString": calls.embed}, loads),
        Namespace("files", "llm", {"uploadFileBase64": upload_image}, one_by_one=True),
        Namespace(
            "repository",
            "llm",
            {"searchModels": repositories.search, "getModelDownloadOptions": repositories.download_options},
            {"downloadModel": repositories.download},
        ),
    ]
