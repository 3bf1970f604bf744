"""Following a download that a client started or joined until it ends."""

from collections.abc import AsyncIterator

from atelier.errors import AtelierError, DownloadNotFound, Draining
from gateway.core.admission import Admission
from gateway.fleet.snapshot import Download, DownloadState
from gateway.fleet.watcher import Watcher

LOOK_SECONDS = 1.0  # between checks whether the server is draining


class DownloadFollower:
    """Reports downloads as the registry does. They belong to it, and continue if their client leaves."""

    def __init__(self, watcher: Watcher, admission: Admission) -> None:
        self._watcher = watcher
        self._admission = admission

    async def states(self, download: Download, stale: Download | None) -> AsyncIterator[Download]:
        """The states seen; the last is completed, and its model can be named then.

        `stale`: the state before a restart. Raises the download's error if it fails, DownloadNotFound if it is
        cancelled, and Draining.
        """
        while download.state is not DownloadState.COMPLETED:
            if download.state is DownloadState.FAILED:
                raise download.error or AtelierError("The download failed.")
            yield download
            download = await self._changed(download, stale)
        await self._model_known(download.model_key)
        yield download

    async def _model_known(self, key: str) -> None:
        await self._watcher.wait_for(lambda: key in self._watcher.snapshot.models)

    async def _changed(self, known: Download, stale: Download | None) -> Download:
        while (current := self._watcher.snapshot.downloads.get(known.id)) is not None:
            if current not in (known, stale):
                return current
            if self._admission.draining:
                raise Draining("The server is stopping. The download resumes when the server starts again.")
            await self._watcher.change(LOOK_SECONDS)
        raise DownloadNotFound("The download was cancelled.")
