"""The models that exist: in memory, in the database, and published to every watcher."""

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath

import structlog

from atelier.errors import AlreadyExists, InvalidModelFile, InvalidRequest, ModelNotFound
from atelier.names import ModelName, find_name, near_hint
from registry.feed import Feed
from registry.models.library_files import delete_model_files, find_models, is_mounted, move_in, remove_unfinished
from registry.models.model_facts import VERSION, ModelFacts
from registry.models.model_import import ImportRequest, naming_of, place_files
from registry.models.model_naming import free_key
from registry.models.model_record import Model, Provenance, Replicas, Stamp, stamp_of
from registry.models.model_store import ModelStore
from registry.models.projector_files import projector_for, projectors_in
from registry.models.split_files import read_facts

_log = structlog.get_logger(__name__)


class ModelCatalogue:
    """Owns the models. One change at a time, under the lock `changes`; look-ups wait for nothing."""

    def __init__(self, models_dir: Path, store: ModelStore, feed: Feed) -> None:
        self.changes = asyncio.Lock()  # held by everything that changes models
        self._models_dir = models_dir
        self._store = store
        self._feed = feed
        self._models: dict[str, Model] = {}
        self._hidden: dict[str, Model] = {}  # models whose files are missing or damaged at present
        self._imports: set[asyncio.Task[Model]] = set()
        self._stop = threading.Event()

    # Look-ups.

    def get(self, key: str) -> Model | None:
        return self._models.get(key)

    def all(self) -> list[Model]:
        return list(self._models.values())

    def hidden(self) -> list[Model]:
        return list(self._hidden.values())

    def everything(self) -> Iterator[Model]:
        """Visible and hidden models."""
        return chain(self._models.values(), self._hidden.values())

    def require(self, key: str) -> Model:
        """The model with exactly this key. Raises ModelNotFound, with near names."""
        if model := self._models.get(key):
            return model
        raise ModelNotFound(f'There is no model "{key[:200]}".{near_hint(key, self._models)}', param="model")

    def find(self, name: str) -> Model:
        """The model that a key or its short form names. Raises ModelNotFound, with near names."""
        found = find_name(name, self._models, ())
        assert isinstance(found, ModelName)
        return self._models[found.key]

    def from_package(self, package: str, version: str, file: str) -> Model | None:
        """The model that was downloaded from this package; an empty `version` or `file` matches any."""
        for model in self._models.values():
            origin = model.provenance
            if origin is None or (origin.source, origin.name) != ("pypi", package):
                continue
            if version in ("", origin.revision) and (not file or PurePosixPath(file).name in origin.digests):
                return model
        return None

    def with_digests(self, digests: Sequence[str]) -> Model | None:
        """The downloaded model whose files have these digests."""
        for model in self._models.values():
            if model.provenance and set(digests) <= set(model.provenance.digests.values()):
                return model
        return None

    # Changes that a client asks for.

    async def scan(self) -> None:
        """Make the catalogue agree with the files, at start: new ones are added, deleted ones removed."""
        async with self.changes:
            await asyncio.to_thread(self._models_dir.mkdir, parents=True, exist_ok=True)
            await asyncio.to_thread(remove_unfinished, self._models_dir)
            known = {model.path: model for model in await self._store.all()}
            self._hidden = {model.key: model for model in known.values()}
            for model in known.values():
                await self.renew(model)
            for path in await asyncio.to_thread(find_models, self._models_dir):
                if path not in known:
                    await self.try_to_discover(path)

    async def import_model(self, request: ImportRequest) -> Model:
        """The model of this file, imported unless it is known already. Cancelling the caller does not stop it.

        Raises AlreadyExists when the key is taken, or the file known under another key; InvalidModelFile; DiskFull.
        """
        task = asyncio.create_task(self._import(request))
        self._imports.add(task)
        task.add_done_callback(self._imports.discard)
        return await asyncio.shield(task)

    async def add_downloaded(self, files: Sequence[Path], folder: Path, provenance: Provenance) -> Model:
        """The model of these downloaded files (its parts, then its projector), moved into `folder`.

        Replaces files of the same names there. Raises InvalidModelFile.
        """
        async with self.changes:
            path = await asyncio.to_thread(move_in, files, folder, self._models_dir)
            known = next((model for model in self.everything() if model.path == path), None)
            if known is None:
                return await self._discover(path, provenance)
            facts, stamp = await asyncio.to_thread(read_facts, path), await asyncio.to_thread(stamp_of, path)
            model = replace(known, facts=facts, stamp=stamp, provenance=provenance)
            await self._store.save(model)
            return await self._publish(model)

    async def remove(self, key: str, check: Callable[[Model], None]) -> list[Path]:
        """Forget the model and delete its files inside the library; returns the deleted paths. Raises ModelNotFound.

        Files elsewhere belong to another program and stay. `check` raises what forbids the removal; nothing can be
        loaded between that and the removal.
        """
        async with self.changes:
            model = self.require(key)
            check(model)
            del self._models[key]
            try:
                # The files first: a row without its file is cleaned up at the next start, not so the reverse.
                needed = self._needed_beside(model)
                deleted = await asyncio.to_thread(delete_model_files, model, needed, self._models_dir)
                await self._store.remove(key)
            except BaseException:
                self._models[key] = model
                raise
            self._feed.remove_model(key)
            _log.info("model_removed", model=key, path=str(model.path))
            return deleted

    async def set_default_preset(self, key: str, preset: str | None) -> Model:
        """Set the preset that applies where a request names none. Raises ModelNotFound."""
        async with self.changes:
            return await self._update(replace(self.require(key), default_preset=preset))

    async def set_replicas(self, key: str, replicas: Replicas | None) -> Model:
        """Set how many instances the model has. Raises ModelNotFound."""
        async with self.changes:
            return await self._update(replace(self.require(key), replicas=replicas))

    def stop_imports(self) -> None:
        """Running copies end soon, with an error."""
        self._stop.set()

    async def close(self) -> None:
        """Stop the imports that are still copying; nothing half-written stays."""
        self.stop_imports()
        await asyncio.gather(*self._imports, return_exceptions=True)

    # Changes that follow from files that others changed. The caller holds `changes`.

    async def renew(self, model: Model) -> None:
        """Show a model of the database if its file is still there, as it is now; forget it if it was deleted."""
        try:
            stamp = await asyncio.to_thread(stamp_of, model.path)
            if stamp != model.stamp or model.facts.version != VERSION:
                facts = await asyncio.to_thread(read_facts, model.path)
                model = replace(model, facts=facts, stamp=stamp)
                await self._store.save(model)
            await self._publish(model)
        except FileNotFoundError:
            # Outside the library, or where the library itself is empty, the disk may only be unmounted.
            inside = model.path.is_relative_to(self._models_dir)
            if inside and await asyncio.to_thread(is_mounted, self._models_dir):
                await self._store.remove(model.key)
                self._hidden.pop(model.key, None)
            _log.info("model_gone", model=model.key, path=str(model.path))
        except (InvalidModelFile, OSError) as error:
            _log.warning("model_skipped", model=model.key, path=str(model.path), reason=str(error))

    async def try_to_discover(self, path: Path) -> None:
        """Add the model of this file; one that cannot be read is skipped and logged."""
        try:
            await self._discover(path)
        except (InvalidModelFile, OSError) as error:
            _log.warning("model_skipped", path=str(path), reason=str(error))

    async def forget(self, model: Model) -> None:
        """Remove a model whose file was deleted."""
        await self._store.remove(model.key)
        del self._models[model.key]
        self._feed.remove_model(model.key)
        _log.info("model_gone", model=model.key, path=str(model.path))

    def show(self, model: Model) -> None:
        """Publish the model as it is now."""
        self._hidden.pop(model.key, None)
        self._models[model.key] = model
        self._feed.publish(model)

    # Importing.

    async def _import(self, request: ImportRequest) -> Model:
        async with self.changes:
            facts = await _read(request.path)
            if known := await self._known(request):
                return known
            publisher_key, name = naming_of(request, facts, self._models_dir)
            if request.key and request.key in self._taken_keys():
                raise AlreadyExists(f'There is a model "{request.key}" already; choose another key.', param="key")
            key = request.key or free_key(publisher_key, facts.quantization, self._taken_keys())
            projector = projector_for(request.path, facts, await asyncio.to_thread(projectors_in, request.path.parent))
            paths = await asyncio.to_thread(place_files, request, key, projector, self._models_dir, self._stop)
            try:
                placed = await asyncio.to_thread(read_facts, paths[0])
                return await self._add(paths[0], placed, key, name, source=request.path)
            except BaseException:
                if paths[0] != request.path:
                    await asyncio.to_thread(_delete, paths)
                raise

    async def _known(self, request: ImportRequest) -> Model | None:
        """The model that already has this file, in the file's present state. Raises AlreadyExists."""
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
        """A path belongs to one model while the file is there, whatever is written to it."""
        hidden = [model for model in self._hidden.values() if model.path == path]
        replaced = [model for model in self._models.values() if model.path == path and model.stamp != stamp]
        for model in [*hidden, *replaced]:
            await self.renew(model)

    async def _discover(self, path: Path, provenance: Provenance | None = None) -> Model:
        """Add the model of a file that is already in its place."""
        facts = await asyncio.to_thread(read_facts, path)
        key, name = naming_of(ImportRequest(path), facts, self._models_dir)
        free = free_key(key, facts.quantization, self._taken_keys())
        return await self._add(path, facts, free, name, source=path, provenance=provenance)

    async def _add(
        self, path: Path, facts: ModelFacts, key: str, name: str, *, source: Path, provenance: Provenance | None = None
    ) -> Model:
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
        shown = await self._update(model)
        _log.info("model_imported", model=key, path=str(path))
        return shown

    async def _update(self, model: Model) -> Model:
        await self._store.save(model)
        return await self._publish(model)

    async def _publish(self, model: Model) -> Model:
        found = await asyncio.to_thread(projectors_in, model.path.parent)
        shown = replace(model, projector=projector_for(model.path, model.facts, found))
        self.show(shown)
        return shown

    def _needed_beside(self, model: Model) -> set[str]:
        """Names of files in the model's folder that other models were downloaded with, or need as their projector."""
        others = [each for each in self.everything() if each.path.parent == model.path.parent and each != model]
        needed = {name for each in others if each.provenance for name in each.provenance.digests}
        projector = model.projector
        if projector and any(projector_for(each.path, each.facts, [projector]) for each in others):
            needed.add(projector.path.name)
        return needed

    def _taken_keys(self) -> Collection[str]:
        return self._models.keys() | self._hidden.keys()


async def _read(path: Path) -> ModelFacts:
    try:
        return await asyncio.to_thread(read_facts, path)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}.", param="path") from None


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
