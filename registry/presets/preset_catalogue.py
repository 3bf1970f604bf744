"""The presets that exist, and every change to them."""

import asyncio
import time
from dataclasses import replace

import structlog

from atelier.errors import AlreadyExists, Conflict, InvalidRequest, InvalidTemplate, PresetNotFound
from atelier.names import check_preset_name, near_hint
from atelier.settings.preset import Preset, check_settings, settings_json
from registry.feed import Feed
from registry.models.model_catalogue import ModelCatalogue
from registry.presets.preset_store import PresetStore
from registry.presets.template_trial import try_template

MOST_PRESETS = 200  # every gateway receives all of them in one message of at most 64 MiB
MOST_BYTES = 256 * 1024  # of one preset's settings

_log = structlog.get_logger(__name__)


class Presets:
    """Owns the presets. One change at a time, in the database before it is published; look-ups wait for nothing."""

    def __init__(self, store: PresetStore, catalogue: ModelCatalogue, feed: Feed) -> None:
        self._store = store
        self._catalogue = catalogue
        self._feed = feed
        self._presets: dict[str, Preset] = {}
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        for preset in await self._store.newest():
            self._show(preset)

    def get(self, name: str) -> Preset | None:
        return self._presets.get(name)

    def require(self, name: str) -> Preset:
        """Raises PresetNotFound, with near names."""
        if preset := self._presets.get(name):
            return preset
        raise PresetNotFound(f'There is no preset "{name[:100]}".{near_hint(name, self._presets)}', param="preset")

    async def versions(self, name: str) -> list[Preset]:
        """Newest first. Raises PresetNotFound."""
        self.require(name)
        return await self._store.versions(name)

    async def put(self, wanted: Preset, expected: int | None) -> Preset:
        """Create the preset, or write its next version.

        `expected`: the version to replace; 0: the preset must not exist. Raises Conflict or AlreadyExists if it is
        another; InvalidRequest that names the faulty setting; InvalidTemplate; ModelNotFound.
        """
        return await asyncio.shield(asyncio.create_task(self._put(wanted, expected)))

    async def _put(self, wanted: Preset, expected: int | None) -> Preset:
        """Not cancelled with its caller: what is in the database must be published."""
        name = check_preset_name(wanted.name)
        settings = check_settings(wanted.settings)
        if len(settings_json(settings)) > MOST_BYTES:
            raise InvalidRequest(f"A preset has at most {MOST_BYTES // 1024} KiB of settings.", param="settings")
        known = self._presets.get(name)
        model = wanted.model
        if model is not None and (known is None or model != known.model):  # its present model may be gone
            model = self._catalogue.find(model).key
        await _check_template(settings.get("prompt", {}).get("chat_template"))
        async with self._changing:
            before = self._presets.get(name)
            if before is None and len(self._presets) >= MOST_PRESETS:
                raise Conflict(f"There are {MOST_PRESETS} presets; delete one first.", param="name")
            _check_expected(name, before, expected)
            version = before.version + 1 if before else 1
            preset = Preset(name=name, model=model, settings=settings, version=version, changed_at=time.time())
            if before and replace(preset, version=before.version, changed_at=before.changed_at) == before:
                return before
            await self._store.add(preset)
            self._show(preset)
        _log.info("preset_written", preset=name, version=preset.version)
        return preset

    async def delete(self, name: str) -> None:
        """Raises Conflict while it is a model's default; PresetNotFound."""
        await asyncio.shield(asyncio.create_task(self._delete(name)))

    async def _delete(self, name: str) -> None:
        async with self._changing:
            self.require(name)
            if users := [model.key for model in self._catalogue.all() if model.default_preset == name]:
                raise Conflict(
                    f'"{name}" is the default preset of {", ".join(users)}: choose another default first.', param="name"
                )
            await self._store.remove(name)
            del self._presets[name]
            self._feed.remove_preset(name)

    def _show(self, preset: Preset) -> None:
        self._presets[preset.name] = preset
        self._feed.publish(preset)


def _check_expected(name: str, before: Preset | None, expected: int | None) -> None:
    if expected is None or expected == (before.version if before else 0):
        return
    if not expected:
        raise AlreadyExists(
            f'There is a preset "{name}" already; choose another name, or change the existing one.', param="name"
        )
    now = f"it is at version {before.version}" if before else "it is gone"
    raise Conflict(f'"{name}" has changed meanwhile: {now}. Read it again and retry.', param="version")


async def _check_template(template: str | None) -> None:
    if template is not None and (fault := await try_template(template)) is not None:
        raise InvalidTemplate(f"prompt.chat_template: {fault}", param="prompt.chat_template")
