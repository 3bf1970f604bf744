"""The registry's gRPC service: reads each request, makes one call, and renders the reply."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from atelier.errors import InvalidRequest
from atelier.machine_memory import machine_memory
from atelier.rpc import Context, reported_errors
from atelier.settings.settings_table import load_values
from protos import registry_pb2 as pb
from protos.registry_pb2_grpc import RegistryServicer as GeneratedServicer
from registry.disk.disk_usage import Disk
from registry.feed import Feed
from registry.hub.downloads import Downloads
from registry.instances.instance_loader import InstanceLoader
from registry.instances.instance_set import InstanceSet
from registry.instances.launch_plan import LaunchPlanner
from registry.instances.memory_admission import MemoryAdmission
from registry.models.file_digests import verify
from registry.models.memory_estimate import describe_model
from registry.models.model_catalogue import ModelCatalogue
from registry.models.model_import import check_import
from registry.presets.preset_catalogue import Presets
from registry.responses.response_retention import Responses
from registry.wire import (
    MODES,
    change_message,
    description_message,
    device_messages,
    disk_message,
    download_message,
    estimate_message,
    instance_message,
    model_message,
    preset_message,
    read_address,
    read_preset,
    read_replicas,
    read_response,
    repository_message,
    response_message,
    verdict_message,
)


class RegistryServicer(GeneratedServicer):
    """Thin: the owners of models, instances, downloads, presets and responses decide."""

    def __init__(
        self,
        *,
        catalogue: ModelCatalogue,
        loader: InstanceLoader,
        instances: InstanceSet,
        planner: LaunchPlanner,
        admission: MemoryAdmission,
        downloads: Downloads,
        presets: Presets,
        responses: Responses,
        disk: Disk,
        feed: Feed,
    ) -> None:
        self._catalogue = catalogue
        self._loader = loader
        self._instances = instances
        self._planner = planner
        self._admission = admission
        self._downloads = downloads
        self._presets = presets
        self._responses = responses
        self._disk = disk
        self._feed = feed
        self._verifying = ThreadPoolExecutor(1, thread_name_prefix="verify")  # the default threads are for launches

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.Change]:
        async with reported_errors(context):
            async for change in self._feed.follow():
                yield change_message(change)

    async def EnsureInstance(self, request: pb.EnsureInstanceRequest, context: Context) -> pb.Instance:
        async with reported_errors(context):
            ttl = request.ttl_seconds if request.HasField("ttl_seconds") else None
            return instance_message(await self._loader.ensure_ready(request.name, ttl, load_values(request.load)))

    async def CreateInstance(self, request: pb.CreateInstanceRequest, context: Context) -> pb.Instance:
        async with reported_errors(context):
            identifier = request.identifier if request.HasField("identifier") else None
            preset = request.preset if request.HasField("preset") else None
            ttl = request.ttl_seconds if request.HasField("ttl_seconds") else None
            instance = await self._loader.create(request.model_key, identifier, load_values(request.load), preset, ttl)
            return instance_message(instance)

    async def EstimateMemory(self, request: pb.EstimateMemoryRequest, context: Context) -> pb.MemoryEstimate:
        async with reported_errors(context):
            preset = request.preset if request.HasField("preset") else None
            return estimate_message(await self._planner.estimate(request.model_key, load_values(request.load), preset))

    async def UnloadInstance(self, request: pb.UnloadInstanceRequest, context: Context) -> pb.UnloadInstanceReply:
        async with reported_errors(context):
            grace = request.grace_seconds if request.HasField("grace_seconds") else None
            await self._instances.unload(request.instance_id, grace)
            return pb.UnloadInstanceReply()

    async def ImportModel(self, request: pb.ImportModelRequest, context: Context) -> pb.Model:
        async with reported_errors(context):
            key = request.key if request.HasField("key") else None
            wanted = await asyncio.to_thread(check_import, request.path, key, MODES[request.mode])
            return model_message(await self._catalogue.import_model(wanted))

    async def SearchHub(self, request: pb.SearchHubRequest, context: Context) -> pb.SearchHubReply:
        async with reported_errors(context):
            found = await self._downloads.search(request.query, request.limit)
            memory = machine_memory().total
            return pb.SearchHubReply(repositories=[repository_message(each, memory) for each in found])

    async def StartDownload(self, request: pb.StartDownloadRequest, context: Context) -> pb.StartDownloadReply:
        async with reported_errors(context):
            started = await self._downloads.start(request.model, request.quantization, request.revision)
            if started.model is not None:
                return pb.StartDownloadReply(model_key=started.model.key)
            assert started.download is not None
            return pb.StartDownloadReply(download=download_message(started.download))

    async def ControlDownload(self, request: pb.ControlDownloadRequest, context: Context) -> pb.Download:
        async with reported_errors(context):
            act = {
                pb.ControlDownloadRequest.PAUSE: self._downloads.pause,
                pb.ControlDownloadRequest.RESUME: self._downloads.resume,
                pb.ControlDownloadRequest.CANCEL: self._downloads.cancel,
            }.get(request.action)
            if act is None:
                raise InvalidRequest("action must be pause, resume or cancel.", param="action")
            return download_message(await act(request.id))

    async def PutPreset(self, request: pb.PutPresetRequest, context: Context) -> pb.Preset:
        async with reported_errors(context):
            expected = request.expected_version if request.HasField("expected_version") else None
            return preset_message(await self._presets.put(read_preset(request.preset), expected))

    async def DeletePreset(self, request: pb.DeletePresetRequest, context: Context) -> pb.DeletePresetReply:
        async with reported_errors(context):
            await self._presets.delete(request.name)
            return pb.DeletePresetReply()

    async def ListPresetVersions(
        self, request: pb.ListPresetVersionsRequest, context: Context
    ) -> pb.ListPresetVersionsReply:
        async with reported_errors(context):
            versions = await self._presets.versions(request.name)
            return pb.ListPresetVersionsReply(versions=[preset_message(version) for version in versions])

    async def SetDefaultPreset(self, request: pb.SetDefaultPresetRequest, context: Context) -> pb.Model:
        async with reported_errors(context):
            preset = self._presets.require(request.preset).name if request.HasField("preset") else None
            return model_message(await self._catalogue.set_default_preset(request.model_key, preset))

    async def SetReplicas(self, request: pb.SetReplicasRequest, context: Context) -> pb.Model:
        async with reported_errors(context):
            replicas = read_replicas(request.replicas) if request.HasField("replicas") else None
            return model_message(await self._catalogue.set_replicas(request.model_key, replicas))

    async def RemoveModel(self, request: pb.RemoveModelRequest, context: Context) -> pb.RemoveModelReply:
        async with reported_errors(context):
            deleted = await self._catalogue.remove(request.key, self._instances.check_unused)
            return pb.RemoveModelReply(deleted=map(str, deleted))

    async def VerifyModel(self, request: pb.VerifyModelRequest, context: Context) -> pb.VerifyModelReply:
        async with reported_errors(context):
            model, stop = self._catalogue.require(request.key), threading.Event()
            try:
                loop = asyncio.get_running_loop()
                verdicts = await loop.run_in_executor(self._verifying, verify, model, stop)
            finally:
                stop.set()  # if the client disconnected, the thread need not finish
            return pb.VerifyModelReply(files=map(verdict_message, verdicts))

    async def DescribeModel(self, request: pb.DescribeModelRequest, context: Context) -> pb.ModelDescription:
        async with reported_errors(context):
            model = self._catalogue.require(request.key)
            estimate = self._planner.estimator(model)
            description = await asyncio.to_thread(
                describe_model, model, lambda length: estimate({"context_length": length})
            )
            return description_message(description)

    async def ListDevices(self, request: pb.ListDevicesRequest, context: Context) -> pb.ListDevicesReply:
        async with reported_errors(context):
            inventory = await self._admission.inventory()
            return pb.ListDevicesReply(devices=device_messages(inventory, self._instances.ids_on))

    async def MeasureDisk(self, request: pb.MeasureDiskRequest, context: Context) -> pb.DiskUse:
        async with reported_errors(context):
            return disk_message(await self._disk.use())

    async def PutResponse(self, request: pb.PutResponseRequest, context: Context) -> pb.PutResponseReply:
        async with reported_errors(context):
            await self._responses.put(read_response(request.response))
            return pb.PutResponseReply()

    async def GetResponse(self, request: pb.ResponseRequest, context: Context) -> pb.StoredResponse:
        async with reported_errors(context):
            response = await self._responses.get(read_address(request))
            return response_message(response, self._responses.age(response))

    async def GetConversation(self, request: pb.ResponseRequest, context: Context) -> pb.Conversation:
        async with reported_errors(context):
            responses = await self._responses.conversation(read_address(request))
            return pb.Conversation(responses=[response_message(each, self._responses.age(each)) for each in responses])

    async def DeleteResponse(self, request: pb.ResponseRequest, context: Context) -> pb.DeleteResponseReply:
        async with reported_errors(context):
            await self._responses.delete(read_address(request))
            return pb.DeleteResponseReply()
