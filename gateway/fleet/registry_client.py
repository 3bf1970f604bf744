"""The registry's calls, with its errors as ours."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import grpc.aio

from atelier.config import Config
from atelier.errors import Draining, Unavailable
from atelier.rpc import ERROR_KEY, from_rpc_error, open_channel, token_metadata
from atelier.settings.preset import Preset
from atelier.settings.settings_table import load_message
from gateway.fleet.snapshot import Download, Instance, Model, StoredResponse
from gateway.fleet.wire import (
    preset_message,
    read_download,
    read_instance,
    read_model,
    read_preset,
    read_response,
    response_message,
)
from protos import registry_pb2 as pb
from protos.registry_pb2_grpc import RegistryStub

ESTIMATE_SECONDS = 10.0
DEVICES_SECONDS = 45.0  # the registry asks another process
FILES_SECONDS = 60.0
PRESET_SECONDS = 20.0  # the registry tries the preset's template
RESPONSE_SECONDS = 15.0  # a large body on a slow disk
HUB_SECONDS = 90.0
NO_SETTINGS: Mapping[str, object] = MappingProxyType({})
MARGIN_SECONDS = 30.0  # beyond the time that a load may take, so that the registry's own timeout comes first

Request = TypeVar("Request")
Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What a load may specify beside its settings."""

    identifier: str | None = None
    preset: str | None = None
    ttl: float | None = None  # idle seconds after which it is unloaded


class RegistryClient:
    """One channel to the registry. Owns the calls in flight."""

    def __init__(self, config: Config) -> None:
        self._channel = open_channel(config.registry_target)
        self._stub = RegistryStub(self._channel)
        token = config.registry_token
        self._metadata = token_metadata(token.get_secret_value()) if token else ()
        self._load_timeout = config.load_timeout + MARGIN_SECONDS
        self._calls: set[grpc.aio.Call] = set()
        self._closed = False

    async def watch(self) -> AsyncGenerator[pb.Change]:
        """The registry's changes, a snapshot first. Raises grpc.aio.AioRpcError when the stream is lost."""
        changes = self._stub.Watch(pb.WatchRequest(), metadata=self._metadata)
        try:
            async for change in changes:
                yield change
        finally:
            changes.cancel()

    async def ensure(
        self, name: str, request_id: str, ttl: float | None = None, load: Mapping[str, object] = NO_SETTINGS
    ) -> Instance:
        """A ready instance for an exact model key or instance id; if it has to be loaded, with these settings.

        `ttl`: idle seconds after which it is then unloaded; negative: never; None: the default.
        """
        request = pb.EnsureInstanceRequest(
            name=name, request_id=request_id, ttl_seconds=ttl, load=load_message(load) if load else None
        )
        return read_instance(await self._reply(self._stub.EnsureInstance, request, self._load_timeout))

    async def create(
        self, model_key: str, options: LoadOptions, load: Mapping[str, object], request_id: str
    ) -> Instance:
        """One more instance of a model, once it is ready."""
        request = pb.CreateInstanceRequest(
            model_key=model_key,
            identifier=options.identifier,
            preset=options.preset,
            ttl_seconds=options.ttl,
            load=load_message(load),
            request_id=request_id,
        )
        return read_instance(await self._reply(self._stub.CreateInstance, request, self._load_timeout))

    async def estimate(self, model_key: str, load: Mapping[str, object], preset: str | None) -> pb.MemoryEstimate:
        """The memory that one more instance of the model would take, in bytes."""
        request = pb.EstimateMemoryRequest(model_key=model_key, load=load_message(load), preset=preset)
        return await self._reply(self._stub.EstimateMemory, request, ESTIMATE_SECONDS)

    async def unload(self, instance_id: str) -> None:
        request = pb.UnloadInstanceRequest(instance_id=instance_id)
        await self._reply(self._stub.UnloadInstance, request, self._load_timeout)

    async def import_model(self, path: str, key: str | None, mode: str) -> Model:
        """Without a deadline: a large file on slow storage may take very long."""
        number = pb.ImportModelRequest.Mode.Value(mode.upper())
        request = pb.ImportModelRequest(path=path, key=key, mode=number)
        return read_model(await self._reply(self._stub.ImportModel, request, None))

    async def describe_model(self, key: str) -> pb.ModelDescription:
        return await self._reply(self._stub.DescribeModel, pb.DescribeModelRequest(key=key), ESTIMATE_SECONDS)

    async def devices(self) -> list[pb.Device]:
        reply = await self._reply(self._stub.ListDevices, pb.ListDevicesRequest(), DEVICES_SECONDS)
        return list(reply.devices)

    async def disk_use(self) -> pb.DiskUse:
        """Without a deadline: the registry visits every file, however slow the disk is."""
        return await self._reply(self._stub.MeasureDisk, pb.MeasureDiskRequest(), None)

    async def remove_model(self, key: str) -> list[str]:
        """The files that were deleted."""
        reply = await self._reply(self._stub.RemoveModel, pb.RemoveModelRequest(key=key), FILES_SECONDS)
        return list(reply.deleted)

    async def verify_model(self, key: str) -> pb.VerifyModelReply:
        """Without a deadline: a large file is read, however slow the disk is."""
        return await self._reply(self._stub.VerifyModel, pb.VerifyModelRequest(key=key), None)

    async def put_preset(self, preset: Preset, expected: int | None) -> Preset:
        """`expected`: the version to replace; 0: the preset must not exist; None: any."""
        request = pb.PutPresetRequest(preset=preset_message(preset), expected_version=expected)
        return read_preset(await self._reply(self._stub.PutPreset, request, PRESET_SECONDS))

    async def delete_preset(self, name: str) -> None:
        await self._reply(self._stub.DeletePreset, pb.DeletePresetRequest(name=name), PRESET_SECONDS)

    async def preset_versions(self, name: str) -> list[Preset]:
        """The newest first."""
        request = pb.ListPresetVersionsRequest(name=name)
        reply = await self._reply(self._stub.ListPresetVersions, request, PRESET_SECONDS)
        return [read_preset(version) for version in reply.versions]

    async def set_default_preset(self, model_key: str, preset: str | None) -> Model:
        request = pb.SetDefaultPresetRequest(model_key=model_key, preset=preset)
        return read_model(await self._reply(self._stub.SetDefaultPreset, request, PRESET_SECONDS))

    async def set_replicas(self, model_key: str, replicas: pb.Replicas | None) -> Model:
        request = pb.SetReplicasRequest(model_key=model_key, replicas=replicas)
        return read_model(await self._reply(self._stub.SetReplicas, request, PRESET_SECONDS))

    async def put_response(self, response: StoredResponse) -> None:
        """Return once it is written."""
        request = pb.PutResponseRequest(response=response_message(response))
        await self._reply(self._stub.PutResponse, request, RESPONSE_SECONDS)

    async def get_response(self, request: pb.ResponseRequest) -> StoredResponse:
        return read_response(await self._reply(self._stub.GetResponse, request, RESPONSE_SECONDS))

    async def get_conversation(self, request: pb.ResponseRequest) -> list[StoredResponse]:
        """The oldest first."""
        reply = await self._reply(self._stub.GetConversation, request, RESPONSE_SECONDS)
        return [read_response(each) for each in reply.responses]

    async def delete_response(self, request: pb.ResponseRequest) -> None:
        await self._reply(self._stub.DeleteResponse, request, RESPONSE_SECONDS)

    async def search_hub(self, query: str, limit: int) -> pb.SearchHubReply:
        return await self._reply(self._stub.SearchHub, pb.SearchHubRequest(query=query, limit=limit), HUB_SECONDS)

    async def start_download(self, model: str, quantization: str | None, revision: str | None) -> Download | str:
        """The download, or the key of the model if it exists already."""
        request = pb.StartDownloadRequest(model=model, quantization=quantization, revision=revision)
        reply = await self._reply(self._stub.StartDownload, request, HUB_SECONDS)
        return read_download(reply.download) if reply.HasField("download") else reply.model_key

    async def control_download(self, download_id: str, action: str) -> Download:
        """`action`: pause, resume or cancel."""
        number = pb.ControlDownloadRequest.Action.Value(action.upper())
        request = pb.ControlDownloadRequest(id=download_id, action=number)
        return read_download(await self._reply(self._stub.ControlDownload, request, HUB_SECONDS))

    async def close(self) -> None:
        """End the calls in flight with Draining, and close the channel."""
        self._closed = True
        for call in list(self._calls):
            call.cancel()
        await self._channel.close()

    async def _reply(
        self, method: "grpc.aio.UnaryUnaryMultiCallable[Request, Reply]", request: Request, seconds: float | None
    ) -> Reply:
        if self._closed:  # a closed channel would raise grpc's internal error
            raise Draining()
        call = method(request, metadata=self._metadata, timeout=seconds)
        self._calls.add(call)
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise _explained(error) from None
        except asyncio.CancelledError:
            if self._closed:
                raise Draining() from None
            raise
        finally:
            self._calls.discard(call)


def _explained(error: grpc.aio.AioRpcError) -> Exception:
    from_registry = any(key == ERROR_KEY for key, _ in error.trailing_metadata() or ())
    if error.code() is grpc.StatusCode.UNAVAILABLE and not from_registry:
        return Unavailable("The registry does not respond at the moment; loaded models are still served.")
    return from_rpc_error(error)


class ResponseStore:
    """One dialect's stored responses, which the registry keeps: any gateway finds them.

    Raises Unavailable when the registry is away; ResponseNotFound, also for another owner's.
    """

    def __init__(self, registry: RegistryClient, kind: str) -> None:
        self._registry = registry
        self._kind = kind

    async def put(self, id: str, owner: str, body: bytes, *, created_at: float, previous_id: str | None = None) -> None:
        """Return once it is written, in place of one of the same id. The response that it continues is kept with it."""
        await self._registry.put_response(StoredResponse(id, owner, self._kind, body, created_at, previous_id))

    async def get(self, id: str, owner: str) -> StoredResponse:
        return await self._registry.get_response(self._request(id, owner))

    async def conversation(self, id: str, owner: str) -> list[StoredResponse]:
        """The response and all that it continues, the oldest first. Raises ResponseNotFound if one of them is gone."""
        return await self._registry.get_conversation(self._request(id, owner))

    async def delete(self, id: str, owner: str) -> None:
        """The responses that it continues are kept, and those that continue it, which cannot be continued further."""
        await self._registry.delete_response(self._request(id, owner))

    def _request(self, id: str, owner: str) -> pb.ResponseRequest:
        return pb.ResponseRequest(id=id, owner=owner, kind=self._kind)
