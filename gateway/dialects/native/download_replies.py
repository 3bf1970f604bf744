"""What the routes of the hub and of downloads return: the types, and builders of them."""

import time
from collections.abc import Mapping
from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from gateway.dialects.reply import rfc3339
from gateway.dialects.route import Fault, Nullable
from gateway.fleet.snapshot import Download, DownloadState
from gateway.http.error_responses import error_envelope
from protos import registry_pb2 as pb

DownloadStatus = Literal["downloading", "paused", "completed", "failed"]

LMSTUDIO_STATUS: Mapping[DownloadState, DownloadStatus] = {
    DownloadState.QUEUED: "downloading",
    DownloadState.DOWNLOADING: "downloading",
    DownloadState.VERIFYING: "downloading",
    DownloadState.COMPLETED: "completed",
    DownloadState.PAUSED: "paused",
    DownloadState.FAILED: "failed",
}


class HubVariant(TypedDict):
    quantization: str | None
    files: list[str]
    size_bytes: int
    fits: bool


class HubRepository(TypedDict):
    id: str
    author: str
    downloads: int
    likes: int
    gated: bool
    changed_at: str
    licence: str
    commit: str
    variants: list[HubVariant]


class HubRepositories(TypedDict):
    models: list[HubRepository]


class DownloadObject(TypedDict):
    """LM Studio's fields, and ours: `state` is finer than its `status`."""

    job_id: str
    status: DownloadStatus
    state: str
    model: str
    repo: str
    revision: str
    files: list[str]
    total_size_bytes: int
    downloaded_bytes: int
    bytes_per_second: int
    seconds_left: float | None
    estimated_completion: NotRequired[Nullable[str]]
    started_at: str
    completed_at: NotRequired[Nullable[str]]
    model_key: str | None
    error: Fault | None


class AlreadyDownloaded(TypedDict):
    status: Literal["already_downloaded"]
    model_key: str


StartedDownload = TypeAliasType(
    "StartedDownload",
    Annotated[
        DownloadObject | AlreadyDownloaded,
        Field(title="StartedDownload", description="Nothing is downloaded if the model is there already."),
    ],
)


class DownloadList(TypedDict):
    downloads: list[DownloadObject]


def repository_object(repository: pb.Repository) -> HubRepository:
    return {
        "id": repository.id,
        "author": repository.author,
        "downloads": repository.downloads,
        "likes": repository.likes,
        "gated": repository.gated,
        "changed_at": repository.changed_at,
        "licence": repository.licence,
        "commit": repository.commit,
        "variants": [
            {
                "quantization": variant.quantization or None,
                "files": list(variant.files),
                "size_bytes": variant.size_bytes,
                "fits": variant.fits,
            }
            for variant in repository.variants
        ],
    }


def download_object(download: Download) -> DownloadObject:
    """Without the times that do not apply to its state."""
    left = download.seconds_left
    reply: DownloadObject = {
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
        "started_at": rfc3339(download.started_at, "milliseconds"),
        "model_key": download.model_key or None,
        "error": error_envelope(download.error)["error"] if download.error else None,
    }
    if left is not None:
        reply["estimated_completion"] = rfc3339(time.time() + left, "milliseconds")
    if download.state is DownloadState.COMPLETED:
        reply["completed_at"] = rfc3339(download.finished_at, "milliseconds")
    return reply
