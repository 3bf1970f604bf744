"""The replies of the routes of the hub and of downloads."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from gateway.dialects.documented import Documented, Fault, Nullable
from gateway.dialects.native.download_routes import LONGEST_QUERY, MOST_FOUND, USUALLY_FOUND


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
    status: Literal["downloading", "paused", "completed", "failed"]
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
        Field(title="StartedDownload", description="Nothing is downloaded where the model is there."),
    ],
)


class DownloadList(TypedDict):
    downloads: list[DownloadObject]


REPO = "bartowski/Qwen3-0.6B-GGUF"
DOWNLOAD = {
    "job_id": "9b2834c11d4e",
    "status": "downloading",
    "state": "downloading",
    "model": REPO,
    "repo": REPO,
    "revision": "c" * 40,
    "files": ["Qwen3-0.6B-Q4_K_M.gguf"],
    "total_size_bytes": 484220320,
    "downloaded_bytes": 96844064,
    "bytes_per_second": 12105508,
    "seconds_left": 32.0,
    "estimated_completion": "2026-01-02T03:05:05.000Z",
    "started_at": "2026-01-02T03:04:25.000Z",
    "model_key": None,
    "error": None,
}
REPOSITORY = {
    "id": REPO,
    "author": "bartowski",
    "downloads": 70000,
    "likes": 20,
    "gated": False,
    "changed_at": "2025-05-01T00:00:00Z",
    "licence": "apache-2.0",
    "commit": "c" * 40,
    "variants": [
        {"quantization": "Q4_K_M", "files": ["Qwen3-0.6B-Q4_K_M.gguf"], "size_bytes": 484220320, "fits": True}
    ],
}

DOCUMENTED = {
    "GET /api/v1/models/search": Documented(
        reply=HubRepositories,
        query={
            "query": {"type": "string", "maxLength": LONGEST_QUERY},
            "limit": {"type": "integer", "minimum": 1, "maximum": MOST_FOUND, "default": USUALLY_FOUND},
        },
        example={"models": [REPOSITORY]},
    ),
    "POST /api/v1/models/download": Documented(
        reply=StartedDownload, request={"model": REPO, "quantization": "Q4_K_M"}, example=DOWNLOAD
    ),
    "GET /api/v1/models/download/status/{job_id}": Documented(reply=DownloadObject, example=DOWNLOAD),
    "GET /api/v1/models/downloads": Documented(reply=DownloadList, example={"downloads": [DOWNLOAD]}),
    "POST /api/v1/models/download/{job_id}/{action}": Documented(
        reply=DownloadObject, example={**DOWNLOAD, "status": "paused", "state": "paused"}
    ),
}
