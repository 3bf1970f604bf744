"""What is loaded, at a client's word."""

import contextlib

from atelier.errors import InstanceNotFound
from atelier.names import InstanceName, ModelName
from gateway.core.dispatcher import Dispatcher
from gateway.fleet.control import Control
from gateway.fleet.snapshot import LOADED, Instance
from gateway.fleet.watcher import Watcher


class Residence:
    """Loads models without a request to answer, and unloads them."""

    def __init__(self, watcher: Watcher, dispatcher: Dispatcher, control: Control) -> None:
        self._watcher = watcher
        self._dispatcher = dispatcher
        self._control = control

    async def load(self, target: ModelName | InstanceName, request_id: str, ttl: float | None) -> Instance:
        """An instance that is ready, loaded if there is none; this gateway has heard of it."""
        instance = await self._dispatcher.find(target, request_id, ttl=ttl)
        await self._watcher.wait_for(lambda: self._is_loaded(instance.id))
        return instance

    async def unload(self, target: ModelName | InstanceName) -> None:
        """The instance that is named, or all of the model's; what they work on is finished first."""
        snapshot = self._watcher.snapshot
        ids = [target.id] if isinstance(target, InstanceName) else [i.id for i in snapshot.instances_of(target.key)]
        for instance_id in ids:
            with contextlib.suppress(InstanceNotFound):  # it went by itself
                await self._control.unload(instance_id)

    def _is_loaded(self, instance_id: str) -> bool:
        instance = self._watcher.snapshot.instances.get(instance_id)
        return instance is not None and instance.state in LOADED
