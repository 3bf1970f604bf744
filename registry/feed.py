"""What the registry publishes: a snapshot of its state, then each change, in order."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from atelier.errors import Unavailable
from atelier.settings.preset import Preset
from registry.hub.download_record import Download
from registry.instances.instance_record import Instance
from registry.models.model_record import Model

MOST_BEHIND = 1000  # unread changes; a subscriber that falls further behind must start again

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    models: list[Model]
    instances: list[Instance]
    downloads: list[Download]
    presets: list[Preset]


@dataclass(frozen=True, slots=True)
class ModelRemoved:
    key: str


@dataclass(frozen=True, slots=True)
class InstanceRemoved:
    id: str


@dataclass(frozen=True, slots=True)
class DownloadRemoved:
    id: str


@dataclass(frozen=True, slots=True)
class PresetRemoved:
    name: str


Changed = Model | Instance | Download | Preset
Change = Snapshot | Changed | ModelRemoved | InstanceRemoved | DownloadRemoved | PresetRemoved


class Feed:
    """The published state. Written on the event loop by the owners of models, instances, downloads and presets."""

    def __init__(self, most_behind: int = MOST_BEHIND) -> None:
        self._models: dict[str, Model] = {}
        self._instances: dict[str, Instance] = {}
        self._downloads: dict[str, Download] = {}
        self._presets: dict[str, Preset] = {}
        self._subscribers: set[_Subscriber] = set()
        self._most_behind = most_behind

    def publish(self, changed: Changed) -> None:
        """Something was added or has changed."""
        match changed:
            case Model():
                self._models[changed.key] = changed
            case Instance():
                self._instances[changed.id] = changed
            case Download():
                self._downloads[changed.id] = changed
            case Preset():
                self._presets[changed.name] = changed
        self._send(changed)

    def remove_model(self, key: str) -> None:
        if self._models.pop(key, None):
            self._send(ModelRemoved(key))

    def remove_instance(self, instance_id: str) -> None:
        if self._instances.pop(instance_id, None):
            self._send(InstanceRemoved(instance_id))

    def remove_download(self, download_id: str) -> None:
        if self._downloads.pop(download_id, None):
            self._send(DownloadRemoved(download_id))

    def remove_preset(self, name: str) -> None:
        if self._presets.pop(name, None):
            self._send(PresetRemoved(name))

    async def follow(self) -> AsyncIterator[Change]:
        """A snapshot, then every change, until the feed closes. Raises Unavailable if the caller reads too slowly."""
        subscriber = _Subscriber(self._most_behind)
        self._subscribers.add(subscriber)
        snapshot = Snapshot(
            list(self._models.values()),
            list(self._instances.values()),
            list(self._downloads.values()),
            list(self._presets.values()),
        )
        try:
            yield snapshot
            while (change := await subscriber.next()) is not None:
                yield change
        finally:
            self._subscribers.discard(subscriber)

    def close(self) -> None:
        """End every subscriber's stream after its unread changes."""
        for subscriber in self._subscribers:
            subscriber.end()
        self._subscribers = set()

    def _send(self, change: Change) -> None:
        for subscriber in list(self._subscribers):
            if not subscriber.push(change):
                self._subscribers.discard(subscriber)
                _log.warning("subscriber_dropped", behind=self._most_behind)


class _Subscriber:
    """One reader, and its unread changes, whose number is bounded."""

    def __init__(self, most_behind: int) -> None:
        self._unread: deque[Change] = deque()
        self._most_behind = most_behind
        self._wake = asyncio.Event()
        self._dropped = False
        self._ended = False

    def push(self, change: Change) -> bool:
        """False if the reader is too far behind; its unread changes are discarded."""
        self._wake.set()
        if len(self._unread) < self._most_behind:
            self._unread.append(change)
            return True
        self._unread.clear()
        self._dropped = True
        return False

    def end(self) -> None:
        self._ended = True
        self._wake.set()

    async def next(self) -> Change | None:
        """The oldest unread change; None at the end."""
        while not self._unread:
            if self._dropped:
                raise Unavailable("This subscriber reads changes too slowly and was dropped; watch again.")
            if self._ended:
                return None
            self._wake.clear()
            await self._wake.wait()
        return self._unread.popleft()
