"""Downloads that a client of Ollama's asks for and then looks at."""

from collections.abc import AsyncIterator

from atelier.errors import ModelNotFound
from atelier.json_types import Json
from gateway.dialects.download_follower import DownloadFollower
from gateway.dialects.ollama.ollama_names import find_target, hub_reference
from gateway.fleet.control import Control
from gateway.fleet.snapshot import Download, DownloadState, Model
from gateway.fleet.watcher import Watcher

SUCCESS = {"status": "success"}


class Pulls:
    """Starts downloads, or joins those that run."""

    def __init__(self, watcher: Watcher, control: Control, follower: DownloadFollower) -> None:
        self._watcher = watcher
        self._control = control
        self._follower = follower

    async def start(self, name: str) -> AsyncIterator[Json]:
        """Progress, the last of it being success. What stands against it is raised at once, or by the iterator."""
        snapshot = self._watcher.known()
        try:
            find_target(name, snapshot)
        except ModelNotFound:
            started = await self._control.start_download(hub_reference(name), None, None)
            return self._progress(started, snapshot.downloads.get(getattr(started, "id", "")))
        return self._progress(None, None)

    async def _progress(self, started: Download | Model | None, stale: Download | None) -> AsyncIterator[Json]:
        yield {"status": "pulling manifest"}
        if isinstance(started, Download):
            async for download in self._follower.states(started, stale):
                if download.state is not DownloadState.COMPLETED:
                    yield progress_object(download)
        yield SUCCESS


def progress_object(download: Download) -> Json:
    """Without a digest: it is known when all has come."""
    if download.state is DownloadState.VERIFYING:
        return {"status": "verifying sha256 digest"}
    if download.state is DownloadState.PAUSED:
        return {"status": "paused"}
    status = f"pulling {download.files[0] if download.files else download.repo}"
    return {"status": status, "total": download.total_bytes, "completed": download.done_bytes}
