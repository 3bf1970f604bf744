"""What the hub has, and bringing it here: LM Studio's two routes for downloads, and ours beside them."""

import time
from collections.abc import Sequence
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response

from atelier.errors import DiskFull, DownloadNotFound, InvalidRequest
from atelier.json_types import Json
from gateway.dialects.body import read_body
from gateway.dialects.native.download_reply_types import DownloadList, DownloadObject, HubRepositories, StartedDownload
from gateway.dialects.native.native_requests import DownloadBody
from gateway.dialects.reply import json_response, rfc3339
from gateway.dialects.route import HUB, Route
from gateway.fleet.control import Control
from gateway.fleet.snapshot import Download, DownloadState, Model
from gateway.fleet.watcher import Watcher
from gateway.http.error_responses import error_envelope
from protos import registry_pb2 as pb

MOST_FOUND = 50
USUALLY_FOUND = 10
LONGEST_QUERY = 200  # characters
ACTIONS = ("pause", "resume", "cancel")
LMSTUDIO_STATUS = {
    DownloadState.QUEUED: "downloading",
    DownloadState.DOWNLOADING: "downloading",
    DownloadState.VERIFYING: "downloading",
    DownloadState.COMPLETED: "completed",
    DownloadState.PAUSED: "paused",
    DownloadState.FAILED: "failed",
}


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
                "How far a download is",
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
            raise InvalidRequest(f"query: at most {LONGEST_QUERY} characters", param="query")
        found = await self._control.search_hub(query, read_limit(request.query_params.get("limit")))
        return json_response({"models": [repository_object(repository) for repository in found.repositories]})

    async def start(self, request: Request) -> Response:
        body = await read_body(request, DownloadBody)
        started = await self._control.start_download(body.model, body.quantization, body.revision)
        if isinstance(started, Model):
            return json_response({"status": "already_downloaded", "model_key": started.key})
        return json_response(download_object(started))

    async def status(self, request: Request) -> Response:
        download_id = request.path_params["job_id"]
        download = self._watcher.known().downloads.get(download_id)
        if download is None:
            raise DownloadNotFound(f'There is no download "{download_id[:100]}".', param="job_id")
        return json_response(download_object(download))

    async def list(self, request: Request) -> Response:
        downloads = sorted(self._watcher.known().downloads.values(), key=lambda download: download.started_at)
        return json_response({"downloads": [download_object(download) for download in downloads]})

    async def act(self, request: Request) -> Response:
        action = request.path_params["action"]
        if action not in ACTIONS:
            raise InvalidRequest(f"A download can be told to {', '.join(ACTIONS)}.", param="action")
        return json_response(
            download_object(await self._control.control_download(request.path_params["job_id"], action))
        )


def read_limit(given: str | None) -> int:
    if given is None:
        return USUALLY_FOUND
    if not given.isascii() or not given.isdecimal() or len(given) > 2 or not 1 <= int(given) <= MOST_FOUND:
        raise InvalidRequest(f"limit: a number from 1 to {MOST_FOUND}", param="limit")
    return int(given)


def repository_object(repository: pb.Repository) -> Json:
    plain = ("id", "author", "downloads", "likes", "gated", "changed_at", "licence", "commit")
    variants = [
        {
            "quantization": variant.quantization or None,
            "files": list(variant.files),
            "size_bytes": variant.size_bytes,
            "fits": variant.fits,
        }
        for variant in repository.variants
    ]
    return {**{name: getattr(repository, name) for name in plain}, "variants": variants}


def download_object(download: Download) -> Json:
    """LM Studio's fields, and ours: `state` is finer than its `status`. Its times are left out where there are none."""
    left = download.seconds_left
    times: Json = {"started_at": rfc3339(download.started_at, "milliseconds")}
    if left is not None:
        times["estimated_completion"] = rfc3339(time.time() + left, "milliseconds")
    if download.state is DownloadState.COMPLETED:
        times["completed_at"] = rfc3339(download.finished_at, "milliseconds")
    return {
        "job_id": download.id,
        "status": LMSTUDIO_STATUS.get(download.state, "downloading"),
        "state": download.state.value,
        "model": download.reference,
        "repo": download.repo,
        "revision": download.commit,
        "files": list(download.files),
        "total_size_bytes": download.total_bytes,
        "downloaded_bytes": download.done_bytes,
        "bytes_per_second": round(download.bytes_per_second),
        "seconds_left": None if left is None else round(left, 1),
        **times,
        "model_key": download.model_key or None,
        "error": error_envelope(download.error)["error"] if download.error else None,
    }
