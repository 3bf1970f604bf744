"""A client of the registry for tests: waits are bounded, errors are those of atelier/errors.py."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import grpc.aio

from atelier.rpc import from_rpc_error, open_channel, token_metadata
from atelier.settings.preset import Preset
from protos import registry_pb2 as pb
from protos.registry_pb2_grpc import RegistryStub
from registry.wire import read_preset

T = TypeVar("T")
SECONDS = 50.0  # that anything may take on a busy machine


class View:
    """A watcher's view: the newest state of every model and instance, and the order of changes."""

    def __init__(self) -> None:
        self.models: dict[str, pb.Model] = {}
        self.instances: dict[str, pb.Instance] = {}
        self.downloads: dict[str, pb.Download] = {}
        self.presets: dict[str, pb.Preset] = {}
        self.changes: list[pb.Change] = []
        self._changed = asyncio.Event()

    def take(self, change: pb.Change) -> None:
        self.changes.append(change)
        match change.WhichOneof("change"):
            case "snapshot":
                self.models = {model.key: model for model in change.snapshot.models}
                self.instances = {instance.id: instance for instance in change.snapshot.instances}
                self.downloads = {download.id: download for download in change.snapshot.downloads}
                self.presets = {preset.name: preset for preset in change.snapshot.presets}
            case "preset":
                self.presets[change.preset.name] = change.preset
            case "preset_removed":
                self.presets.pop(change.preset_removed)
            case "download":
                self.downloads[change.download.id] = change.download
            case "download_removed":
                self.downloads.pop(change.download_removed)
            case "model":
                self.models[change.model.key] = change.model
            case "model_removed":
                self.models.pop(change.model_removed)
            case "instance":
                self.instances[change.instance.id] = change.instance
            case "instance_removed":
                self.instances.pop(change.instance_removed)
        self._changed.set()

    async def until(self, holds: Callable[["View"], T]) -> T:
        """What `holds` returns, once that is true; an entry that it asks for may still be on its way."""
        async with asyncio.timeout(SECONDS):
            while True:
                with suppress(KeyError):
                    if result := holds(self):
                        return result
                self._changed.clear()
                await self._changed.wait()

    async def until_state(self, instance_id: str, state: pb.InstanceState.ValueType) -> pb.Instance:
        def in_state(view: View) -> pb.Instance | None:
            instance = view.instances.get(instance_id)
            return instance if instance is not None and instance.state == state else None

        instance = await self.until(in_state)
        assert instance is not None
        return instance

    async def until_download(self, download_id: str, state: pb.DownloadState.ValueType) -> pb.Download:
        def in_state(view: View) -> pb.Download | None:
            download = view.downloads.get(download_id)
            return download if download is not None and download.state == state else None

        download = await self.until(in_state)
        assert download is not None
        return download

    def states_of(self, instance_id: str) -> list[str]:
        """The states it went through, as published, each once in a row."""
        states: list[str] = []
        for change in self.changes:
            if change.instance.id == instance_id:
                name = pb.InstanceState.Name(change.instance.state)
                states += [name] if states[-1:] != [name] else []
        return states


class RegistryClient:
    """One channel to a registry."""

    def __init__(self, channel: grpc.aio.Channel, token: str | None = None) -> None:
        self.stub = RegistryStub(channel)
        self._metadata = token_metadata(token) if token else ()

    async def ensure(self, name: str, ttl: float | None = None, **load: Any) -> pb.Instance:
        request = pb.EnsureInstanceRequest(name=name, ttl_seconds=ttl, load=load)  # type: ignore[arg-type]
        return await self._call(self.stub.EnsureInstance, request)

    async def create(
        self,
        model_key: str,
        identifier: str | None = None,
        preset: str | None = None,
        ttl: float | None = None,
        **load: Any,
    ) -> pb.Instance:
        request = pb.CreateInstanceRequest(
            model_key=model_key,
            identifier=identifier,
            preset=preset,
            ttl_seconds=ttl,
            load=load,  # type: ignore[arg-type]
        )
        return await self._call(self.stub.CreateInstance, request)

    async def estimate(self, model_key: str, **load: Any) -> pb.MemoryEstimate:
        request = pb.EstimateMemoryRequest(model_key=model_key, load=load)  # type: ignore[arg-type]
        return await self._call(self.stub.EstimateMemory, request)

    async def unload(self, instance_id: str, grace_seconds: float = 0.0) -> None:
        request = pb.UnloadInstanceRequest(instance_id=instance_id, grace_seconds=grace_seconds)
        await self._call(self.stub.UnloadInstance, request)

    async def import_model(self, path: object, key: str | None = None, mode: Any = 0) -> pb.Model:
        return await self._call(self.stub.ImportModel, pb.ImportModelRequest(path=str(path), key=key, mode=mode))

    async def devices(self) -> list[pb.Device]:
        return list((await self._call(self.stub.ListDevices, pb.ListDevicesRequest())).devices)

    async def disk(self) -> pb.DiskUse:
        return await self._call(self.stub.MeasureDisk, pb.MeasureDiskRequest())

    async def describe(self, key: str) -> pb.ModelDescription:
        return await self._call(self.stub.DescribeModel, pb.DescribeModelRequest(key=key))

    async def remove(self, key: str) -> list[str]:
        return list((await self._call(self.stub.RemoveModel, pb.RemoveModelRequest(key=key))).deleted)

    async def verify(self, key: str) -> list[pb.FileVerdict]:
        return list((await self._call(self.stub.VerifyModel, pb.VerifyModelRequest(key=key))).files)

    async def put_preset(
        self, name: str, expected: int | None = None, model: str | None = None, **groups: Any
    ) -> Preset:
        message = pb.Preset(name=name, model_key=model, settings_json=json.dumps(groups).encode())
        request = pb.PutPresetRequest(preset=message, expected_version=expected)
        return read_preset(await self._call(self.stub.PutPreset, request))

    async def delete_preset(self, name: str) -> None:
        await self._call(self.stub.DeletePreset, pb.DeletePresetRequest(name=name))

    async def preset_versions(self, name: str) -> list[Preset]:
        request = pb.ListPresetVersionsRequest(name=name)
        return [read_preset(each) for each in (await self._call(self.stub.ListPresetVersions, request)).versions]

    async def set_default_preset(self, model_key: str, preset: str | None) -> pb.Model:
        request = pb.SetDefaultPresetRequest(model_key=model_key, preset=preset)
        return await self._call(self.stub.SetDefaultPreset, request)

    async def set_replicas(self, model_key: str, limits: tuple[int, int] | None) -> pb.Model:
        replicas = pb.Replicas(least=limits[0], most=limits[1]) if limits else None
        return await self._call(self.stub.SetReplicas, pb.SetReplicasRequest(model_key=model_key, replicas=replicas))

    async def put_response(self, id: str, owner: str = "me", kind: str = "openai", **more: Any) -> None:
        response = pb.StoredResponse(id=id, owner=owner, kind=kind, **{"body": b"{}", **more})
        await self._call(self.stub.PutResponse, pb.PutResponseRequest(response=response))

    async def get_response(self, id: str, owner: str = "me", kind: str = "openai") -> pb.StoredResponse:
        return await self._call(self.stub.GetResponse, pb.ResponseRequest(id=id, owner=owner, kind=kind))

    async def conversation(self, id: str, owner: str = "me", kind: str = "openai") -> list[pb.StoredResponse]:
        request = pb.ResponseRequest(id=id, owner=owner, kind=kind)
        return list((await self._call(self.stub.GetConversation, request)).responses)

    async def delete_response(self, id: str, owner: str = "me", kind: str = "openai") -> None:
        await self._call(self.stub.DeleteResponse, pb.ResponseRequest(id=id, owner=owner, kind=kind))

    async def search(self, query: str, limit: int = 10) -> list[pb.Repository]:
        reply = await self._call(self.stub.SearchHub, pb.SearchHubRequest(query=query, limit=limit))
        return list(reply.repositories)

    async def download(self, model: str, **more: str) -> pb.StartDownloadReply:
        return await self._call(self.stub.StartDownload, pb.StartDownloadRequest(model=model, **more))

    async def control(self, download_id: str, action: Any) -> pb.Download:
        return await self._call(self.stub.ControlDownload, pb.ControlDownloadRequest(id=download_id, action=action))

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[View]:
        """A view that follows the registry, its snapshot taken already."""
        view = View()
        call = self.stub.Watch(pb.WatchRequest(), metadata=self._metadata, wait_for_ready=True)
        task = asyncio.create_task(_follow(call, view))
        try:
            await view.until(lambda view: view.changes)
            yield view
        finally:
            task.cancel()
            await asyncio.wait([task])
            call.cancel()

    async def _call(self, method: Callable[..., Awaitable[T]], request: object) -> T:
        try:
            return await method(request, metadata=self._metadata, timeout=SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None


async def _follow(call: Any, view: View) -> None:
    async for change in call:
        view.take(change)


@asynccontextmanager
async def connect(address: str, token: str | None = None) -> AsyncIterator[RegistryClient]:
    channel = open_channel(address)
    try:
        yield RegistryClient(channel, token)
    finally:
        await channel.close()
