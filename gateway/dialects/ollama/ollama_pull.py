"""Downloads on request of Ollama's clients, and the stream of their progress."""

from collections.abc import AsyncIterator, Mapping
from typing import ClassVar, NotRequired

from starlette.types import Scope, Send
from typing_extensions import TypedDict

from atelier.errors import AtelierError, ModelNotFound
from gateway.dialects.download_follower import DownloadFollower
from gateway.dialects.ollama.ollama_names import find_target, hub_reference
from gateway.dialects.ollama.ollama_stream import HEADERS, line
from gateway.dialects.reply import StreamedResponse, failed, send_part
from gateway.dialects.route import Nullable
from gateway.fleet.control import Control
from gateway.fleet.snapshot import Download, DownloadState, Model
from gateway.fleet.watcher import Watcher


class OllamaProgress(TypedDict):
    status: str
    digest: NotRequired[Nullable[str]]
    total: NotRequired[Nullable[int]]
    completed: NotRequired[Nullable[int]]


SUCCESS: OllamaProgress = {"status": "success"}


class Pulls:
    """Starts downloads, or joins those in progress."""

    def __init__(self, watcher: Watcher, control: Control, follower: DownloadFollower) -> None:
        self._watcher = watcher
        self._control = control
        self._follower = follower

    async def start(self, name: str) -> AsyncIterator[OllamaProgress]:
        """Progress, which ends with success. A failed start raises at once, a failed download from the iterator."""
        snapshot = self._watcher.known()
        try:
            find_target(name, snapshot)
        except ModelNotFound:
            started = await self._control.start_download(hub_reference(name), None, None)
            return self._progress(started, snapshot.downloads.get(getattr(started, "id", "")))
        return self._progress(None, None)

    async def _progress(
        self, started: Download | Model | None, stale: Download | None
    ) -> AsyncIterator[OllamaProgress]:
        yield {"status": "pulling manifest"}
        if isinstance(started, Download):
            async for download in self._follower.states(started, stale):
                if download.state is not DownloadState.COMPLETED:
                    yield progress_object(download)
        yield SUCCESS


def progress_object(download: Download) -> OllamaProgress:
    """Without a digest, which is unknown until the download is complete."""
    if download.state is DownloadState.VERIFYING:
        return {"status": "verifying sha256 digest"}
    if download.state is DownloadState.PAUSED:
        return {"status": "paused"}
    status = f"pulling {download.files[0] if download.files else download.repo}"
    return {"status": status, "total": download.total_bytes, "completed": download.done_bytes}


class ProgressStream(StreamedResponse):
    """A download's progress in lines. The download continues if the client disconnects."""

    frame_headers: ClassVar[Mapping[str, str]] = HEADERS

    def __init__(self, progress: AsyncIterator[OllamaProgress]) -> None:
        super().__init__({})
        self._progress = progress

    async def _stream(self, scope: Scope, send: Send) -> bytes:
        try:
            async for each in self._progress:
                await send_part(send, line(each))
        except AtelierError as error:
            return failed(scope, error)
        return b""
