"""What the gateway asks of the registry, with its errors as ours."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import grpc.aio

from atelier.config import Config
from atelier.errors import Draining, Unavailable
from atelier.rpc import ERROR_KEY, from_rpc_error, open_channel, token_metadata
from atelier.settings.preset import Preset, settings_json
from atelier.settings.settings_wire import load_message
from gateway.fleet.snapshot import Download, Instance, Model, read_download, read_instance, read_model, read_preset
from protos import registry_pb2 as pb
from protos.registry_pb2_grpc import RegistryStub

ESTIMATE_SECONDS = 10.0
DEVICES_SECONDS = 45.0  # a process is asked
FILES_SECONDS = 60.0
PRESET_SECONDS = 20.0  # a template is tried
RESPONSE_SECONDS = 15.0  # a large body on a slow disk
HUB_SECONDS = 90.0  # a hub may be slow
NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})
MARGIN_SECONDS = 30.0  # beyond the time that a load may take: the registry is to say first that it took too long


@dataclass(frozen=True, slots=True)
class LoadWish:
    """What a load may say beside its settings."""

    identifier: str | None = None
    preset: str | None = None
    ttl: float | None = None  # seconds without work after which it is unloaded


class RegistryClient:
    """One channel to the registry. Owns the calls that are on their way."""

    def __init__(self, config: Config) -> None:
        self._channel = open_channel(config.registry_target)
        self.stub = RegistryStub(self._channel)
        token = config.registry_token
        self.metadata = token_metadata(token.get_secret_value()) if token else ()
        self._load_timeout = config.load_timeout + MARGIN_SECONDS
        self._calls: set[grpc.aio.UnaryUnaryCall[Any, Any]] = set()
        self._closed = False

    async def ensure(
        self, name: str, request_id: str, ttl: float | None = None, load: Mapping[str, Any] = NO_SETTINGS
    ) -> Instance:
        """A ready instance for an exact model key or instance id, loaded if need be, with these settings then.

        `ttl`: seconds that it may then be idle; negative: for ever; None: as usual.
        """
        request = pb.EnsureInstanceRequest(
            name=name, request_id=request_id, ttl_seconds=ttl, load=load_message(load) if load else None
        )
        return read_instance(await self._reply(self.stub.EnsureInstance, request, self._load_timeout))

    async def create(self, model_key: str, wish: LoadWish, load: Mapping[str, Any], request_id: str) -> Instance:
        """One more instance of a model, once it is ready."""
        request = pb.CreateInstanceRequest(
            model_key=model_key,
            identifier=wish.identifier,
            preset=wish.preset,
            ttl_seconds=wish.ttl,
            load=load_message(load),
            request_id=request_id,
        )
        return read_instance(await self._reply(self.stub.CreateInstance, request, self._load_timeout))

    async def estimate(self, model_key: str, load: Mapping[str, Any], preset: str | None) -> pb.MemoryEstimate:
        """The memory that one more instance of the model would take, in bytes."""
        request = pb.EstimateMemoryRequest(model_key=model_key, load=load_message(load), preset=preset)
        reply: pb.MemoryEstimate = await self._reply(self.stub.EstimateMemory, request, ESTIMATE_SECONDS)
        return reply

    async def unload(self, instance_id: str) -> None:
        request = pb.UnloadInstanceRequest(instance_id=instance_id)
        await self._reply(self.stub.UnloadInstance, request, self._load_timeout)

    async def import_model(self, path: str, key: str | None, mode: str) -> Model:
        """Without a deadline: a large file on slow storage takes as long as it takes."""
        number = pb.ImportModelRequest.Mode.Value(mode.upper())
        request = pb.ImportModelRequest(path=path, key=key, mode=number)
        return read_model(await self._reply(self.stub.ImportModel, request, None))

    async def describe_model(self, key: str) -> pb.ModelDescription:
        request = pb.DescribeModelRequest(key=key)
        reply: pb.ModelDescription = await self._reply(self.stub.DescribeModel, request, ESTIMATE_SECONDS)
        return reply

    async def devices(self) -> list[pb.Device]:
        reply = await self._reply(self.stub.ListDevices, pb.ListDevicesRequest(), DEVICES_SECONDS)
        return list(reply.devices)

    async def disk_use(self) -> pb.DiskUse:
        """Without a deadline: every file is looked at, as fast as the disk is."""
        reply: pb.DiskUse = await self._reply(self.stub.MeasureDisk, pb.MeasureDiskRequest(), None)
        return reply

    async def remove_model(self, key: str) -> list[str]:
        """The files that were deleted."""
        reply = await self._reply(self.stub.RemoveModel, pb.RemoveModelRequest(key=key), FILES_SECONDS)
        return list(reply.deleted)

    async def verify_model(self, key: str) -> pb.VerifyModelReply:
        """Without a deadline: a large file is read as fast as its disk is."""
        reply: pb.VerifyModelReply = await self._reply(self.stub.VerifyModel, pb.VerifyModelRequest(key=key), None)
        return reply

    async def put_preset(self, preset: Preset, expected: int | None) -> Preset:
        """`expected`: the version that is to be replaced; 0: there shall be none."""
        message = pb.Preset(name=preset.name, model_key=preset.model, settings_json=settings_json(preset.settings))
        request = pb.PutPresetRequest(preset=message, expected_version=expected)
        return read_preset(await self._reply(self.stub.PutPreset, request, PRESET_SECONDS))

    async def delete_preset(self, name: str) -> None:
        await self._reply(self.stub.DeletePreset, pb.DeletePresetRequest(name=name), PRESET_SECONDS)

    async def preset_versions(self, name: str) -> list[Preset]:
        """The newest first."""
        request = pb.ListPresetVersionsRequest(name=name)
        reply = await self._reply(self.stub.ListPresetVersions, request, PRESET_SECONDS)
        return [read_preset(version) for version in reply.versions]

    async def set_default_preset(self, model_key: str, preset: str | None) -> Model:
        request = pb.SetDefaultPresetRequest(model_key=model_key, preset=preset)
        return read_model(await self._reply(self.stub.SetDefaultPreset, request, PRESET_SECONDS))

    async def set_replicas(self, model_key: str, replicas: pb.Replicas | None) -> Model:
        request = pb.SetReplicasRequest(model_key=model_key, replicas=replicas)
        return read_model(await self._reply(self.stub.SetReplicas, request, PRESET_SECONDS))

    async def put_response(self, response: pb.StoredResponse) -> None:
        """It is written when this returns."""
        await self._reply(self.stub.PutResponse, pb.PutResponseRequest(response=response), RESPONSE_SECONDS)

    async def get_response(self, request: pb.ResponseRequest) -> pb.StoredResponse:
        reply: pb.StoredResponse = await self._reply(self.stub.GetResponse, request, RESPONSE_SECONDS)
        return reply

    async def get_conversation(self, request: pb.ResponseRequest) -> list[pb.StoredResponse]:
        """The oldest first."""
        return list((await self._reply(self.stub.GetConversation, request, RESPONSE_SECONDS)).responses)

    async def delete_response(self, request: pb.ResponseRequest) -> None:
        await self._reply(self.stub.DeleteResponse, request, RESPONSE_SECONDS)

    async def search_hub(self, query: str, limit: int) -> pb.SearchHubReply:
        reply: pb.SearchHubReply = await self._reply(
            self.stub.SearchHub, pb.SearchHubRequest(query=query, limit=limit), HUB_SECONDS
        )
        return reply

    async def start_download(self, model: str, quantization: str | None, revision: str | None) -> Download | str:
        """The download, or the key of the model that is there already."""
        request = pb.StartDownloadRequest(model=model, quantization=quantization, revision=revision)
        reply: pb.StartDownloadReply = await self._reply(self.stub.StartDownload, request, HUB_SECONDS)
        return read_download(reply.download) if reply.HasField("download") else reply.model_key

    async def control_download(self, download_id: str, action: str) -> Download:
        number = pb.ControlDownloadRequest.Action.Value(action.upper())
        request = pb.ControlDownloadRequest(id=download_id, action=number)
        return read_download(await self._reply(self.stub.ControlDownload, request, HUB_SECONDS))

    async def close(self) -> None:
        """End the calls that are on their way, with Draining, and the channel."""
        self._closed = True
        for call in list(self._calls):
            call.cancel()
        await self._channel.close()

    async def _reply(self, method: Any, request: Any, seconds: float | None) -> Any:
        if self._closed:  # a channel that is closed raises what nobody expects
            raise Draining()
        call = method(request, metadata=self.metadata, timeout=seconds)
        self._calls.add(call)
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise self._explained(error) from None
        except asyncio.CancelledError:
            if self._closed:
                raise Draining() from None
            raise
        finally:
            self._calls.discard(call)

    def _explained(self, error: grpc.aio.AioRpcError) -> Exception:
        told = any(key == ERROR_KEY for key, _ in error.trailing_metadata() or ())
        if error.code() is grpc.StatusCode.UNAVAILABLE and not told:
            return Unavailable("The registry does not answer at the moment; models that are loaded go on being served.")
        return from_rpc_error(error)
