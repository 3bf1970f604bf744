"""Downloads that a client started, or joined, and looks at until they are done."""

from collections.abc import AsyncIterator

from atelier.errors import AtelierError, DownloadNotFound, Draining
from gateway.core.admission import Admission
from gateway.fleet.snapshot import Download, DownloadState
from gateway.fleet.watcher import Watcher

LOOK_SECONDS = 1.0  # between looks at whether the server stops


class DownloadFollower:
    """Tells of downloads what the registry tells. They belong to it, and go on without whoever looks."""

    def __init__(self, watcher: Watcher, admission: Admission) -> None:
        self._watcher = watcher
        self._admission = admission

    async def states(self, download: Download, stale: Download | None) -> AsyncIterator[Download]:
        """Each that is seen, the last of them completed: its model can be named then.

        `stale`: what was known before it was started again. Raises why it failed; DownloadNotFound when it
        was cancelled; Draining.
        """
        while download.state is not DownloadState.COMPLETED:
            if download.state is DownloadState.FAILED:
                raise download.error or AtelierError("The download failed.")
            yield download
            download = await self._changed(download, stale)
        await self._heard_of(download.model_key)
        yield download

    async def _heard_of(self, key: str) -> None:
        await self._watcher.wait_for(lambda: key in self._watcher.snapshot.models)

    async def _changed(self, known: Download, stale: Download | None) -> Download:
        while (current := self._watcher.snapshot.downloads.get(known.id)) is not None:
            if current not in (known, stale):
                return current
            if self._admission.draining:
                raise Draining("The server stops. The download goes on when it is started again.")
            await self._watcher.change(LOOK_SECONDS)
        raise DownloadNotFound("The download was cancelled.")
