"""Downloads that a client of Ollama's asks for and then looks at."""

from collections.abc import AsyncIterator
from typing import Any

from atelier.errors import AtelierError, DownloadNotFound, Draining, ModelNotFound
from gateway.admission import Admission
from gateway.control import Control
from gateway.ollama.names import find_target, hub_reference
from gateway.snapshot import Download, DownloadState, Model
from gateway.watcher import Watcher

LOOK_SECONDS = 1.0  # between looks at whether the server stops
SUCCESS = {"status": "success"}

Json = dict[str, Any]


class Pulls:
    """Starts downloads, or joins those that run. They belong to the registry, and go on without whoever looks."""

    def __init__(self, watcher: Watcher, control: Control, admission: Admission) -> None:
        self._watcher = watcher
        self._control = control
        self._admission = admission

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
            async for download in self._states(started, stale):
                yield progress_object(download)
        yield SUCCESS

    async def _states(self, download: Download, stale: Download | None) -> AsyncIterator[Download]:
        """Each that is seen before it is completed. `stale`: what was known before it was started again."""
        while download.state is not DownloadState.COMPLETED:
            if download.state is DownloadState.FAILED:
                raise download.error or AtelierError("The download failed.")
            yield download
            download = await self._changed(download, stale)
        await self._heard_of(download.model_key)

    async def _heard_of(self, key: str) -> None:
        """So that the client's next request can name the model."""
        await self._watcher.wait_for(lambda: key in self._watcher.snapshot.models)

    async def _changed(self, known: Download, stale: Download | None) -> Download:
        while (current := self._watcher.snapshot.downloads.get(known.id)) is not None:
            if current not in (known, stale):
                return current
            if self._admission.draining:
                raise Draining("The server stops. The download goes on when it is started again.")
            await self._watcher.change(LOOK_SECONDS)
        raise DownloadNotFound("The download was cancelled.")


def progress_object(download: Download) -> Json:
    """Without a digest: it is known when all has come."""
    if download.state is DownloadState.VERIFYING:
        return {"status": "verifying sha256 digest"}
    if download.state is DownloadState.PAUSED:
        return {"status": "paused"}
    status = f"pulling {download.files[0] if download.files else download.repo}"
    return {"status": status, "total": download.total_bytes, "completed": download.done_bytes}
