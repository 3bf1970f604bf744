"""What clients that listen are told when something changes."""

from collections.abc import Iterator, Mapping
from typing import Any

from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
)

from gateway.dialects.mcp.mcp_prompts import system_prompts
from gateway.dialects.mcp.resource_uris import entry_uri, list_uri
from gateway.fleet.snapshot import Snapshot
from gateway.fleet.watcher import Watcher


class Changes:
    """Feeds the bus from the watcher. Whoever runs `run` owns it."""

    def __init__(self, watcher: Watcher) -> None:
        self.bus = InMemorySubscriptionBus()
        self._watcher = watcher

    async def run(self) -> None:
        """Until cancelled."""
        told = self._watcher.snapshot
        while True:
            await self._watcher.change(None)
            # What changes while this is told is found by the next comparison, if not by the next change.
            while (now := self._watcher.snapshot) is not told:
                for event in events_between(told, now):
                    await self.bus.publish(event)
                told = now


def events_between(before: Snapshot, after: Snapshot) -> Iterator[ServerEvent]:
    """Pure. The lists first, then the entries that changed."""
    kinds: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "models": (before.models, after.models),
        "instances": (before.instances, after.instances),
        "presets": (before.presets, after.presets),
    }
    if any(old.keys() != new.keys() for old, new in kinds.values()):
        yield ResourcesListChanged()
    if system_prompts(before) != system_prompts(after):
        yield PromptsListChanged()
    for kind, (old, new) in kinds.items():
        changed = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
        if changed:
            yield ResourceUpdated(list_uri(kind))
        for name in sorted(changed):
            yield ResourceUpdated(entry_uri(kind, name))
