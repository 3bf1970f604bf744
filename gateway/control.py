"""Changes to what exists, for the routes that ask for them."""

from collections.abc import Callable, Mapping
from typing import Any

from gateway.registry_client import RegistryClient
from gateway.snapshot import LOADED, Instance, Model, Snapshot
from gateway.watcher import Watcher
from protos import registry_pb2 as pb


class Control:
    """Asks the registry, then waits until this gateway has heard of the change itself.

    So a client that is told "imported" or "loaded" can name it in its next request.
    """

    def __init__(self, registry: RegistryClient, watcher: Watcher) -> None:
        self._registry = registry
        self._watcher = watcher

    async def import_model(self, path: str, key: str | None, mode: str) -> Model:
        model = await self._registry.import_model(path, key, mode)
        await self._heard(lambda snapshot: model.key in snapshot.models)
        return model

    async def load(self, model_key: str, identifier: str | None, load: Mapping[str, Any], request_id: str) -> Instance:
        """One more instance of the model, ready."""
        instance = await self._registry.create(model_key, identifier, load, request_id)
        await self._heard(lambda snapshot: _is_loaded(snapshot, instance.id))
        return instance

    async def estimate(self, model_key: str, load: Mapping[str, Any]) -> pb.MemoryEstimate:
        return await self._registry.estimate(model_key, load)

    async def unload(self, instance_id: str) -> None:
        await self._registry.unload(instance_id)
        await self._heard(lambda snapshot: instance_id not in snapshot.instances)

    async def _heard(self, condition: Callable[[Snapshot], bool]) -> None:
        await self._watcher.wait_for(lambda: condition(self._watcher.snapshot))


def _is_loaded(snapshot: Snapshot, instance_id: str) -> bool:
    instance = snapshot.instances.get(instance_id)
    return instance is not None and instance.state in LOADED
