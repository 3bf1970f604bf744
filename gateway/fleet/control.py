"""Changes to what the registry holds, for the routes that request them."""

from collections.abc import Callable, Mapping

from atelier.settings.preset import Preset
from gateway.fleet.registry_client import LoadOptions, RegistryClient
from gateway.fleet.snapshot import LOADED, Download, Instance, Model, Snapshot
from gateway.fleet.watcher import Watcher
from protos import registry_pb2 as pb


class Control:
    """Calls the registry, then waits until the change has arrived in this gateway's snapshot.

    A client whose import or load was confirmed can then name the model in its next request.
    """

    def __init__(self, registry: RegistryClient, watcher: Watcher) -> None:
        self._registry = registry
        self._watcher = watcher

    async def import_model(self, path: str, key: str | None, mode: str) -> Model:
        model = await self._registry.import_model(path, key, mode)
        await self._arrived(lambda snapshot: model.key in snapshot.models)
        return model

    async def load(self, model_key: str, options: LoadOptions, load: Mapping[str, object], request_id: str) -> Instance:
        """One more instance of the model, ready."""
        instance = await self._registry.create(model_key, options, load, request_id)
        await self._arrived(lambda snapshot: _is_loaded(snapshot, instance.id))
        return instance

    async def ensure(self, name: str, ttl: float | None, load: Mapping[str, object], request_id: str) -> Instance:
        """A ready instance for a model's key or an instance's id; if it has to be loaded, with these settings."""
        instance = await self._registry.ensure(name, request_id, ttl, load)
        await self._arrived(lambda snapshot: _is_loaded(snapshot, instance.id))
        return instance

    async def estimate(self, model_key: str, load: Mapping[str, object], preset: str | None) -> pb.MemoryEstimate:
        return await self._registry.estimate(model_key, load, preset)

    async def unload(self, instance_id: str) -> None:
        await self._registry.unload(instance_id)
        await self._arrived(lambda snapshot: instance_id not in snapshot.instances)

    async def describe_model(self, key: str) -> pb.ModelDescription:
        return await self._registry.describe_model(key)

    async def devices(self) -> list[pb.Device]:
        return await self._registry.devices()

    async def disk_use(self) -> pb.DiskUse:
        return await self._registry.disk_use()

    async def remove_model(self, key: str) -> list[str]:
        deleted = await self._registry.remove_model(key)
        await self._arrived(lambda snapshot: key not in snapshot.models)
        return deleted

    async def verify_model(self, key: str) -> pb.VerifyModelReply:
        return await self._registry.verify_model(key)

    async def put_preset(self, preset: Preset, expected: int | None) -> Preset:
        """`expected`: the version to replace; 0: the preset must not exist; None: any."""
        written = await self._registry.put_preset(preset, expected)
        await self._arrived(lambda snapshot: _has_version(snapshot, written))
        return written

    async def delete_preset(self, name: str) -> None:
        await self._registry.delete_preset(name)
        await self._arrived(lambda snapshot: name not in snapshot.presets)

    async def preset_versions(self, name: str) -> list[Preset]:
        return await self._registry.preset_versions(name)

    async def set_default_preset(self, model_key: str, preset: str | None) -> None:
        await self._registry.set_default_preset(model_key, preset)
        await self._arrived(lambda snapshot: _has_default(snapshot, model_key, preset or ""))

    async def set_replicas(self, model_key: str, replicas: pb.Replicas | None) -> None:
        wanted = (replicas.least, replicas.most) if replicas else None
        await self._registry.set_replicas(model_key, replicas)
        await self._arrived(lambda snapshot: _has_replicas(snapshot, model_key, wanted))

    async def search_hub(self, query: str, limit: int) -> pb.SearchHubReply:
        return await self._registry.search_hub(query, limit)

    async def start_download(self, model: str, quantization: str | None, revision: str | None) -> Download | Model:
        """The download, or the model if it exists already."""
        started = await self._registry.start_download(model, quantization, revision)
        if isinstance(started, str):
            await self._arrived(lambda snapshot: started in snapshot.models)
            return self._watcher.snapshot.models.get(started) or Model(key=started)
        await self._arrived(lambda snapshot: started.id in snapshot.downloads)
        return started

    async def control_download(self, download_id: str, action: str) -> Download:
        """`action`: pause, resume or cancel."""
        download = await self._registry.control_download(download_id, action)
        gone = action == "cancel"
        await self._arrived(lambda snapshot: (download_id in snapshot.downloads) != gone)
        return download

    async def _arrived(self, condition: Callable[[Snapshot], bool]) -> None:
        await self._watcher.wait_for(lambda: condition(self._watcher.snapshot))


def _has_version(snapshot: Snapshot, preset: Preset) -> bool:
    known = snapshot.presets.get(preset.name)
    return known is not None and known.version >= preset.version


def _has_default(snapshot: Snapshot, model_key: str, preset: str) -> bool:
    model = snapshot.models.get(model_key)
    return model is not None and model.default_preset == preset


def _has_replicas(snapshot: Snapshot, model_key: str, replicas: tuple[int, int] | None) -> bool:
    model = snapshot.models.get(model_key)
    return model is not None and model.replicas == replicas


def _is_loaded(snapshot: Snapshot, instance_id: str) -> bool:
    instance = snapshot.instances.get(instance_id)
    return instance is not None and instance.state in LOADED
