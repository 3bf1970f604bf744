"""The models that exist, in memory, in the database and for those who watch."""

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import structlog

from atelier.errors import AlreadyExists, AtelierError, InvalidModelFile, InvalidRequest, ModelNotFound
from atelier.names import ModelName, find_name, near_hint
from registry.feed import Feed
from registry.models.library_files import put, remove_unfinished, take_away
from registry.models.model_facts import VERSION, Facts
from registry.models.model_folder import find_files, is_there
from registry.models.model_import import ImportRequest, naming_of, place_files
from registry.models.model_naming import free_key
from registry.models.model_record import Model, Provenance, Replicas, Stamp, stamp_of
from registry.models.model_store import ModelStore
from registry.models.projector_files import Projector, fits, projector_for, projectors_in
from registry.models.split_files import read_facts

UNREAD = Stamp(-1, -1)  # of a file that was not read yet: no file has it
LOOK_SECONDS = 3.0  # between two looks at the models' folder

_log = structlog.get_logger(__name__)


class Catalogue:
    """Owns the models: one scan or import at a time changes them; look-ups wait for nothing."""

    def __init__(self, models_dir: Path, store: ModelStore, feed: Feed) -> None:
        self._models_dir = models_dir
        self._store = store
        self._feed = feed
        self._models: dict[str, Model] = {}
        self._hidden: dict[str, Model] = {}  # models whose files are away or damaged at the moment
        self._seen: dict[Path, Stamp | None] = {}  # files of the folder at the last look
        self._read_as: dict[Path, Stamp | None] = {}  # and as they were when they were last read
        self._misfits: set[Projector] = set()  # beside models that do not see by them
        self._changing = asyncio.Lock()
        self._imports: set[asyncio.Task[Model]] = set()
        self._stop = threading.Event()

    def get(self, key: str) -> Model | None:
        return self._models.get(key)

    def require(self, key: str) -> Model:
        """The model of exactly this key; ModelNotFound, with near names, when there is none."""
        if model := self._models.get(key):
            return model
        raise ModelNotFound(f'There is no model "{key[:200]}".{near_hint(key, self._models)}', param="model")

    def find(self, name: str) -> Model:
        """The model that a key or its short form means; ModelNotFound, with near names, when there is none."""
        found = find_name(name, self._models, ())
        assert isinstance(found, ModelName)
        return self._models[found.key]

    async def scan(self) -> None:
        """Make the catalogue agree with the files: new ones appear, deleted ones disappear."""
        async with self._changing:
            await asyncio.to_thread(self._models_dir.mkdir, parents=True, exist_ok=True)
            await asyncio.to_thread(remove_unfinished, self._models_dir)
            known = {model.path: model for model in await self._store.all()}
            self._hidden = {model.key: model for model in known.values()}
            for model in known.values():
                await self._renew(model)
            for path in await asyncio.to_thread(find_files, self._models_dir):
                if path not in known:
                    await self._try_to_discover(path)

    async def watch_folder(self) -> None:
        """Follow what happens in the models' folder, until cancelled: by looking, which every file system allows."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.refresh()
            except AtelierError as error:  # of the database: the next look finds the same
                _log.warning("folder_not_followed", reason=error.message)
            except Exception:  # nobody would see this task end
                _log.exception("folder_not_followed")

    async def refresh(self) -> None:
        """Files that were put into the folder appear, deleted ones disappear, changed ones are read again.

        Not before they are at rest: a file that changes between two looks is still being written.
        """
        async with self._changing:
            lying = await asyncio.to_thread(_stamps, self._models_dir)
            there = await asyncio.to_thread(is_there, self._models_dir)
            moving = {path for path, stamp in lying.items() if self._seen.get(path) != stamp}
            self._seen = lying
            for model in list(self._models.values()):
                if not model.path.is_relative_to(self._models_dir):
                    continue
                if model.path not in lying:
                    if there:
                        await self._vanish(model)
                elif lying[model.path] != model.stamp and self._is_news(model.path, moving):
                    await self._renew(model)
                    self._read_as[model.path] = lying[model.path]
            for model in [each for each in self._hidden.values() if each.path in lying]:
                if self._is_news(model.path, moving):
                    await self._renew(model)
                    self._read_as[model.path] = lying[model.path]
            known = {model.path for model in self._everything()}
            await self._look_for_projectors()
            for path in lying.keys() - known:
                if self._is_news(path, moving):
                    await self._try_to_discover(path)
                    self._read_as[path] = lying[path]

    async def _look_for_projectors(self) -> None:
        """A projector that comes or goes beside a model changes what the model can do."""
        models = list(self._models.values())
        folders = {model.path.parent for model in models}
        found = await asyncio.to_thread(lambda: {folder: projectors_in(folder) for folder in folders})
        for model in models:
            projector = projector_for(model.path, model.facts, found[model.path.parent])
            if projector != model.projector:
                self._show(replace(model, projector=projector))
        self._tell_misfits([each for there in found.values() for each in there])

    def _tell_misfits(self, projectors: Sequence[Projector]) -> None:
        """Those that fit no model beside them, once: whoever put one there wonders why nothing sees."""
        misfits = set()
        for each in projectors:
            beside = [model for model in self._models.values() if model.path.parent == each.path.parent]
            if any(fits(each, model.facts) for model in beside):
                continue
            misfits.add(each)
            if each not in self._misfits:
                wanted = {model.key: model.facts.embedding_length for model in beside}
                _log.warning("projector_fits_no_model", path=str(each.path), widths=sorted(each.widths), models=wanted)
        self._misfits = misfits

    def _is_news(self, path: Path, moving: set[Path]) -> bool:
        """Whether the file is at rest and was not read as it is now."""
        return path not in moving and self._read_as.get(path, UNREAD) != self._seen[path]

    async def _vanish(self, model: Model) -> None:
        await self._store.remove(model.key)
        del self._models[model.key]
        self._feed.remove_model(model.key)
        _log.info("model_gone", model=model.key, path=str(model.path))

    async def import_model(self, request: ImportRequest) -> Model:
        """The model of this file, imported unless it is known already.

        A caller that leaves does not stop the import. AlreadyExists when the wanted key, or the
        file under another key, is taken; InvalidModelFile; DiskFull.
        """
        task = asyncio.create_task(self._import(request))
        self._imports.add(task)
        task.add_done_callback(self._imports.discard)
        return await asyncio.shield(task)

    async def take_in(self, files: Sequence[Path], folder: Path, provenance: Provenance) -> Model:
        """The model of these downloaded files, moved into `folder`: its parts, then what belongs to it.

        Files of the same names that lie there are replaced. InvalidModelFile.
        """
        async with self._changing:
            path = await asyncio.to_thread(put, files, folder, self._models_dir)
            known = next((model for model in self._everything() if model.path == path), None)
            if known is None:
                return await self._discover(path, provenance)
            facts, stamp = await asyncio.to_thread(read_facts, path), await asyncio.to_thread(stamp_of, path)
            model = replace(known, facts=facts, stamp=stamp, provenance=provenance)
            await self._store.save(model)
            return await self._publish(model)

    def from_package(self, package: str, version: str, file: str) -> Model | None:
        """The model that was taken from this package; `version` and `file` are empty for any."""
        for model in self._models.values():
            origin = model.provenance
            if origin is None or (origin.source, origin.name) != ("pypi", package):
                continue
            if version in ("", origin.revision) and (not file or PurePosixPath(file).name in origin.digests):
                return model
        return None

    def with_digests(self, digests: Sequence[str]) -> Model | None:
        """The model whose files have this content, as far as it is known by downloading them."""
        for model in self._models.values():
            if model.provenance and set(digests) <= set(model.provenance.digests.values()):
                return model
        return None

    async def remove(self, key: str, check: Callable[[Model], None]) -> list[Path]:
        """Forget the model and delete its files, if they lie in the library; those that were deleted. ModelNotFound.

        Files elsewhere are another program's, and stay. `check` raises what stands against it; nothing can be loaded
        between that and the model's end.
        """
        async with self._changing:
            model = self.require(key)
            check(model)
            del self._models[key]
            try:
                # The files first: a row without its file is cleaned up at the next start, not so the reverse.
                deleted = await asyncio.to_thread(take_away, model, self._needed_beside(model), self._models_dir)
                await self._store.remove(key)
            except BaseException:
                self._models[key] = model
                raise
            self._feed.remove_model(key)
            _log.info("model_removed", model=key, path=str(model.path))
            return deleted

    def _needed_beside(self, model: Model) -> set[str]:
        """Names of files in the model's folder that others came with, or see by."""
        others = [each for each in self._everything() if each.path.parent == model.path.parent and each != model]
        needed = {name for each in others if each.provenance for name in each.provenance.digests}
        projector = model.projector
        if projector and any(projector_for(each.path, each.facts, [projector]) for each in others):
            needed.add(projector.path.name)
        return needed

    def all(self) -> list[Model]:
        return list(self._models.values())

    async def set_default_preset(self, key: str, preset: str | None) -> Model:
        """Whose settings hold for the model where nothing else is said; ModelNotFound."""
        return await self._change(key, default_preset=preset)

    async def set_replicas(self, key: str, replicas: Replicas | None) -> Model:
        """How many instances the model shall have; ModelNotFound."""
        return await self._change(key, replicas=replicas)

    async def _change(self, key: str, **changes: Any) -> Model:
        async with self._changing:
            model = replace(self.require(key), **changes)
            await self._store.save(model)
            return await self._publish(model)

    def give_up(self) -> None:
        """Copies that are being made end soon."""
        self._stop.set()

    async def close(self) -> None:
        """Give up imports that are still copying; nothing half-written stays."""
        self.give_up()
        await asyncio.gather(*self._imports, return_exceptions=True)

    async def _import(self, request: ImportRequest) -> Model:
        async with self._changing:
            facts = await _read(request.path)
            if known := await self._known(request):
                return known
            publisher_key, name = naming_of(request, facts, self._models_dir)
            if request.key and request.key in self._taken():
                raise AlreadyExists(f'There is a model "{request.key}" already; choose another key.', param="key")
            key = request.key or free_key(publisher_key, facts.quantization, self._taken())
            projector = projector_for(request.path, facts, await asyncio.to_thread(projectors_in, request.path.parent))
            paths = await asyncio.to_thread(place_files, request, key, projector, self._models_dir, self._stop)
            try:
                return await self._add(paths[0], key, name, source=request.path)
            except BaseException:
                if paths[0] != request.path:
                    await asyncio.to_thread(_delete, paths)
                raise

    async def _known(self, request: ImportRequest) -> Model | None:
        """The model that this file is already, as it is now: replaced, or back after it was damaged or away."""
        stamp = await asyncio.to_thread(stamp_of, request.path)
        await self._renew_at(request.path, stamp)
        for model in self._models.values():
            if request.path not in (model.source, model.path) or model.stamp.size != stamp.size:
                continue
            if request.key and request.key != model.key:
                raise AlreadyExists(f'This file is imported already, as "{model.key}".', param="key")
            return model
        return None

    async def _renew_at(self, path: Path, stamp: Stamp) -> None:
        """A path is one model's for as long as it lies there, whatever is written to it."""
        hidden = [model for model in self._hidden.values() if model.path == path]
        replaced = [model for model in self._models.values() if model.path == path and model.stamp != stamp]
        for model in [*hidden, *replaced]:
            await self._renew(model)

    async def _renew(self, model: Model) -> None:
        """Take a model from the database, if its file is still there; forget it, if it was deleted."""
        try:
            stamp = await asyncio.to_thread(stamp_of, model.path)
            if stamp != model.stamp or model.facts.version != VERSION:
                facts = await asyncio.to_thread(read_facts, model.path)
                model = replace(model, facts=facts, stamp=stamp)
                await self._store.save(model)
            await self._publish(model)
        except FileNotFoundError:
            gone = model.path.is_relative_to(self._models_dir) and await asyncio.to_thread(is_there, self._models_dir)
            if gone:  # elsewhere, or of an empty folder, its disk may only be away
                await self._store.remove(model.key)
                self._hidden.pop(model.key, None)
            _log.info("model_gone", model=model.key, path=str(model.path))
        except (InvalidModelFile, OSError) as error:
            _log.warning("model_skipped", model=model.key, path=str(model.path), reason=str(error))

    async def _try_to_discover(self, path: Path) -> None:
        try:
            await self._discover(path)
        except (InvalidModelFile, OSError) as error:
            _log.warning("model_skipped", path=str(path), reason=str(error))

    async def _discover(self, path: Path, provenance: Provenance | None = None) -> Model:
        """The model of a file that lies where it shall."""
        facts = await asyncio.to_thread(read_facts, path)
        key, name = naming_of(ImportRequest(path), facts, self._models_dir)
        free = free_key(key, facts.quantization, self._taken())
        return await self._add(path, free, name, source=path, provenance=provenance)

    async def _add(
        self, path: Path, key: str, name: str, *, source: Path, provenance: Provenance | None = None
    ) -> Model:
        facts = await asyncio.to_thread(read_facts, path)
        stamp = await asyncio.to_thread(stamp_of, path)
        model = Model(
            key=key,
            path=path,
            source=source,
            display_name=name,
            facts=facts,
            stamp=stamp,
            imported_at=time.time(),
            provenance=provenance,
        )
        await self._store.save(model)
        shown = await self._publish(model)
        _log.info("model_imported", model=key, path=str(path))
        return shown

    async def _publish(self, model: Model) -> Model:
        found = await asyncio.to_thread(projectors_in, model.path.parent)
        shown = replace(model, projector=projector_for(model.path, model.facts, found))
        self._show(shown)
        return shown

    def _show(self, model: Model) -> None:
        self._hidden.pop(model.key, None)
        self._models[model.key] = model
        self._feed.publish(model)

    def _taken(self) -> Collection[str]:
        return self._models.keys() | self._hidden.keys()

    def _everything(self) -> Iterator[Model]:
        return chain(self._models.values(), self._hidden.values())


def _stamps(root: Path) -> dict[Path, Stamp | None]:
    """Of every model under `root`; None where a part is missing. Blocks; for a thread."""
    found: dict[Path, Stamp | None] = {}
    for path in find_files(root):
        try:
            found[path] = stamp_of(path)
        except (OSError, InvalidModelFile):
            found[path] = None
    return found


async def _read(path: Path) -> Facts:
    try:
        return await asyncio.to_thread(read_facts, path)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}.", param="path") from None


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
