"""Follows the models' folder: files that appear, change or disappear while the registry runs."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from atelier.errors import AtelierError, InvalidModelFile
from registry.models.library_files import find_models, is_mounted
from registry.models.model_catalogue import ModelCatalogue
from registry.models.model_record import Stamp, stamp_of
from registry.models.projector_files import ProjectorFile, fits, projector_for, projectors_in

POLL_SECONDS = 3.0
UNREAD = Stamp(-1, -1)  # of a file that was not read yet: no file has this stamp

_log = structlog.get_logger(__name__)


class FolderWatch:
    """Owns what the last poll found. Polls, because not every file system reports changes."""

    def __init__(self, models_dir: Path, catalogue: ModelCatalogue) -> None:
        self._models_dir = models_dir
        self._catalogue = catalogue
        self._seen: dict[Path, Stamp | None] = {}  # files of the folder at the last poll
        self._read_as: dict[Path, Stamp | None] = {}  # their stamps when they were last read
        self._misfits: set[ProjectorFile] = set()  # already reported

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.refresh()
            except AtelierError as error:  # of the database: the next poll finds the same changes
                _log.warning("folder_not_followed", reason=error.message)
            except Exception:  # nothing awaits this task, so nothing else would report its end
                _log.exception("folder_not_followed")

    async def refresh(self) -> None:
        """Add new files, remove deleted ones, read changed ones again.

        A file that changed between two polls is still being written, and is left for the next poll.
        """
        async with self._catalogue.changes:
            found = await asyncio.to_thread(_stamps, self._models_dir)
            moving = {path for path, stamp in found.items() if self._seen.get(path) != stamp}
            self._seen = found
            await self._refresh_known(moving)
            known = {model.path for model in self._catalogue.everything()}
            await self._refresh_projectors()
            for path in found.keys() - known:
                if self._is_due(path, moving):
                    await self._catalogue.try_to_discover(path)
                    self._read_as[path] = found[path]

    async def _refresh_known(self, moving: set[Path]) -> None:
        mounted = await asyncio.to_thread(is_mounted, self._models_dir)
        for model in self._catalogue.all():
            if not model.path.is_relative_to(self._models_dir):
                continue
            if model.path not in self._seen:
                if mounted:
                    await self._catalogue.forget(model)
            elif self._seen[model.path] != model.stamp and self._is_due(model.path, moving):
                await self._catalogue.renew(model)
                self._read_as[model.path] = self._seen[model.path]
        for model in self._catalogue.hidden():
            if model.path in self._seen and self._is_due(model.path, moving):
                await self._catalogue.renew(model)
                self._read_as[model.path] = self._seen[model.path]

    def _is_due(self, path: Path, moving: set[Path]) -> bool:
        """Whether the file is at rest and has not been read in its present state."""
        return path not in moving and self._read_as.get(path, UNREAD) != self._seen[path]

    async def _refresh_projectors(self) -> None:
        """A projector that appears or disappears beside a model changes what the model can do."""
        models = self._catalogue.all()
        folders = {model.path.parent for model in models}
        found = await asyncio.to_thread(lambda: {folder: projectors_in(folder) for folder in folders})
        for model in models:
            projector = projector_for(model.path, model.facts, found[model.path.parent])
            if projector != model.projector:
                self._catalogue.show(replace(model, projector=projector))
        self._report_misfits([each for projectors in found.values() for each in projectors])

    def _report_misfits(self, projectors: Sequence[ProjectorFile]) -> None:
        """Log, once each, the projectors that fit no model beside them: their models would not accept images."""
        misfits = set()
        for each in projectors:
            beside = [model for model in self._catalogue.all() if model.path.parent == each.path.parent]
            if any(fits(each, model.facts) for model in beside):
                continue
            misfits.add(each)
            if each not in self._misfits:
                wanted = {model.key: model.facts.embedding_length for model in beside}
                _log.warning("projector_fits_no_model", path=str(each.path), widths=sorted(each.widths), models=wanted)
        self._misfits = misfits


def _stamps(root: Path) -> dict[Path, Stamp | None]:
    """The stamp of every model under `root`; None where a part is missing. Blocks; for a thread."""
    found: dict[Path, Stamp | None] = {}
    for path in find_models(root):
        try:
            found[path] = stamp_of(path)
        except (OSError, InvalidModelFile):
            found[path] = None
    return found
