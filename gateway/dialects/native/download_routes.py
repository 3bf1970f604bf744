"""Searching the hub and downloading from it: LM Studio's two routes, and our own."""

from collections.abc import Sequence
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response

from atelier.errors import DiskFull, DownloadNotFound, InvalidRequest
from gateway.dialects.body import read_body
from gateway.dialects.native.download_replies import (
    AlreadyDownloaded,
    DownloadList,
    DownloadObject,
    HubRepositories,
    StartedDownload,
    download_object,
    repository_object,
)
from gateway.dialects.native.native_requests import DownloadBody
from gateway.dialects.reply import json_response
from gateway.dialects.route import HUB, Route
from gateway.fleet.control import Control
from gateway.fleet.snapshot import Model
from gateway.fleet.watcher import Watcher

MOST_FOUND = 50
USUALLY_FOUND = 10
LONGEST_QUERY = 200  # characters
ACTIONS = ("pause", "resume", "cancel")


class DownloadRoutes:
    tag: ClassVar[str] = "Management"

    def __init__(self, watcher: Watcher, control: Control) -> None:
        self._watcher = watcher
        self._control = control

    def routes(self) -> Sequence[Route]:
        return (
            Route(
                "GET /api/v1/models/search",
                self.search,
                "Search the hub for GGUF models",
                errors=HUB,
                query={
                    "query": {"type": "string", "maxLength": LONGEST_QUERY},
                    "limit": {"type": "integer", "minimum": 1, "maximum": MOST_FOUND, "default": USUALLY_FOUND},
                },
                reply=HubRepositories,
            ),
            Route(
                "POST /api/v1/models/download",
                self.start,
                "Download a model from the hub (LM Studio v1)",
                body=DownloadBody,
                request={"model": "bartowski/Qwen3-0.6B-GGUF", "quantization": "Q4_K_M"},
                errors=(*HUB, DiskFull),
                reply=StartedDownload,
            ),
            Route(
                "GET /api/v1/models/download/status/{job_id}",
                self.status,
                "The progress of a download",
                errors=(DownloadNotFound,),
                reply=DownloadObject,
            ),
            Route("GET /api/v1/models/downloads", self.list, "List the downloads", reply=DownloadList),
            Route(
                "POST /api/v1/models/download/{job_id}/{action}",
                self.act,
                "Pause, resume or cancel a download",
                errors=(InvalidRequest, DownloadNotFound),
                reply=DownloadObject,
            ),
        )

    async def search(self, request: Request) -> Response:
        query = request.query_params.get("query", "").strip()
        if len(query) > LONGEST_QUERY:
            raise InvalidRequest(f"query: must have at most {LONGEST_QUERY} characters", param="query")
        found = await self._control.search_hub(query, read_limit(request.query_params.get("limit")))
        return json_response(HubRepositories(models=[repository_object(each) for each in found.repositories]))

    async def start(self, request: Request) -> Response:
        body = await read_body(request, DownloadBody)
        started = await self._control.start_download(body.model, body.quantization, body.revision)
        if isinstance(started, Model):
            return json_response(AlreadyDownloaded(status="already_downloaded", model_key=started.key))
        return json_response(download_object(started))

    async def status(self, request: Request) -> Response:
        download_id = request.path_params["job_id"]
        download = self._watcher.known().downloads.get(download_id)
        if download is None:
            raise DownloadNotFound(f'There is no download "{download_id[:100]}".', param="job_id")
        return json_response(download_object(download))

    async def list(self, request: Request) -> Response:
        downloads = sorted(self._watcher.known().downloads.values(), key=lambda download: download.started_at)
        return json_response(DownloadList(downloads=[download_object(download) for download in downloads]))

    async def act(self, request: Request) -> Response:
        action = request.path_params["action"]
        if action not in ACTIONS:
            raise InvalidRequest(f"action: one of {', '.join(ACTIONS)}", param="action")
        return json_response(
            download_object(await self._control.control_download(request.path_params["job_id"], action))
        )


def read_limit(text: str | None) -> int:
    if text is None:
        return USUALLY_FOUND
    if not text.isascii() or not text.isdecimal() or len(text) > 2 or not 1 <= int(text) <= MOST_FOUND:
        raise InvalidRequest(f"limit: must be an integer from 1 to {MOST_FOUND}", param="limit")
    return int(text)
