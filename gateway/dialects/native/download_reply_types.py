"""The replies of the routes of the hub and of downloads."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from gateway.dialects.route import Fault, Nullable


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
