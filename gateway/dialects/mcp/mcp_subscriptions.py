"""The change events that listening clients receive."""

from collections.abc import Iterator, Mapping

from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
)

from gateway.dialects.mcp.mcp_prompts import system_prompts
from gateway.dialects.mcp.mcp_resources import entry_uri, list_uri
from gateway.fleet.snapshot import Snapshot
from gateway.fleet.watcher import Watcher


class ChangeFeed:
    """Publishes the watcher's changes on the SDK's bus."""

    def __init__(self, watcher: Watcher) -> None:
        self.bus = InMemorySubscriptionBus()
        self._watcher = watcher

    async def run(self) -> None:
        """Until cancelled."""
        published = self._watcher.snapshot
        while True:
            await self._watcher.change(None)
            # A change during the publishing is found by comparing again, not by waiting for the next change.
            while (current := self._watcher.snapshot) is not published:
                for event in events_between(published, current):
                    await self.bus.publish(event)
                published = current


def events_between(before: Snapshot, after: Snapshot) -> Iterator[ServerEvent]:
    """Changes of the lists first, then of the entries. Pure."""
    kinds: dict[str, tuple[Mapping[str, object], Mapping[str, object]]] = {
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
