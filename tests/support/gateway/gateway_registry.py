"""A registry to script: a real gRPC server whose instances are scripted workers of this process."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from atelier.errors import (
    AlreadyExists,
    AtelierError,
    Conflict,
    DownloadNotFound,
    InstanceNotFound,
    PresetNotFound,
    ResponseNotFound,
)
from atelier.launch import LaunchSpec
from atelier.names import numbered_id
from atelier.rpc import Context, create_server, reported_errors
from atelier.settings.groups import Load
from atelier.settings.settings_table import load_message, load_values
from protos import registry_pb2 as pb
from protos.registry_pb2_grpc import RegistryServicer, add_RegistryServicer_to_server
from worker.server import WorkerServer

KEY = "acme/tiny"


def model_message(key: str = KEY, **facts: Any) -> pb.Model:
    publisher, _, name = key.partition("/")
    given = {"architecture": "llama", "quantization": "Q4_1", "max_context_length": 8192, "parameters": 134_515_008}
    return pb.Model(key=key, publisher=publisher, name=name, **{**given, **facts})


class FakeRegistry(RegistryServicer):
    """Tests set `script` and `load`, call `start_instance` or let requests do it, and read what was asked."""

    def __init__(self, directory: Path) -> None:
        self.target = f"unix:{directory / 'registry.sock'}"
        self.models: dict[str, pb.Model] = {KEY: model_message()}
        self.instances: dict[str, pb.Instance] = {}
        self.downloads: dict[str, pb.Download] = {}
        self.presets: dict[str, list[pb.Preset]] = {}  # every version, the oldest first
        self.responses: dict[str, pb.StoredResponse] = {}
        self.found: list[pb.Repository] = []
        self.searched: list[pb.SearchHubRequest] = []
        self.wanted: list[pb.StartDownloadRequest] = []
        self.workers: dict[str, WorkerServer] = {}
        self.script: dict[str, Any] = {}
        self.load = Load(parallel=8)
        self.model_file = ""  # of a real model: then workers have the real engine
        self.ensured: list[str] = []
        self.requested_ttls: list[float | None] = []  # of what was ensured
        self.ensure_requests: list[pb.EnsureInstanceRequest] = []
        self.created: list[pb.CreateInstanceRequest] = []
        self.imported: list[pb.ImportModelRequest] = []
        self.import_deadlines: list[float | None] = []  # seconds that were left
        self.unloaded: list[str] = []
        self.removed: list[str] = []
        self.loads = 0
        self.fail_with: AtelierError | None = None
        self.hold_loads = False
        self.released = asyncio.Event()
        self.asked = asyncio.Event()
        self.abandoned = asyncio.Event()
        self._load_settings: dict[str, dict[str, Any]] = {}  # of instances loaded for requests
        self._loading: dict[str, asyncio.Task[pb.Instance]] = {}
        self._watchers: list[asyncio.Queue[pb.Change]] = []
        self._directory = directory
        self._server = create_server(None)
        self._launches = 0

    async def start(self) -> None:
        self._server = create_server(None)
        add_RegistryServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.target)
        await self._server.start()

    async def go_away(self) -> None:
        """The registry's process dies; its workers keep running."""
        await self._server.stop(None)

    async def stop(self) -> None:
        for task in self._loading.values():
            task.cancel()
        await self.go_away()
        for worker in self.workers.values():
            await worker.stop(0)

    async def start_instance(self, key: str = KEY, id: str | None = None, **load: Any) -> pb.Instance:
        """A worker for the model, ready; every watcher is notified."""
        instance_id = id or numbered_id(key, self.instances)
        self._launches += 1
        spec = LaunchSpec(
            instance_id=instance_id,
            engine="llama" if self.model_file else "scripted",
            model_path=self.model_file,
            load=dataclasses.replace(self.load, **load),
            address=f"unix:{self._directory / f'w{self._launches}.sock'}",
            token=f"token-{self._launches}",
            grace_seconds=600,
            script=self.script,
        )
        worker = self.workers[instance_id] = WorkerServer(spec)
        await worker.start()
        await worker.wait_ready()
        instance = pb.Instance(
            id=instance_id,
            model_key=key,
            state=pb.READY,
            address=spec.address,
            token=spec.token,
            load=load_message(spec.load),
            context_length=spec.load.context_length,
            parallel=spec.load.parallel,
            pin="cpu cores 0-1",
            load_seconds=0.25,
        )
        self.set_instance(instance)
        return instance

    async def kill_worker(self, instance_id: str, state: "pb.InstanceState.ValueType" = pb.RESTARTING) -> None:
        """The worker's process dies, and the registry notices."""
        worker = self.workers.pop(instance_id)
        await worker._server.stop(None)
        self.set_instance(pb.Instance(id=instance_id, model_key=self.instances[instance_id].model_key, state=state))
        await worker.stop(0)

    def set_instance(self, instance: pb.Instance) -> None:
        self.instances[instance.id] = instance
        self.tell(pb.Change(instance=instance))

    def tell(self, change: pb.Change) -> None:
        for queue in self._watchers:
            queue.put_nowait(change)

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.Change]:
        queue: asyncio.Queue[pb.Change] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            snapshot = pb.Snapshot(
                models=self.models.values(),
                instances=self.instances.values(),
                downloads=self.downloads.values(),
                presets=[versions[-1] for versions in self.presets.values()],
            )
            yield pb.Change(snapshot=snapshot)
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(queue)

    async def EnsureInstance(self, request: pb.EnsureInstanceRequest, context: Context) -> pb.Instance:
        self.ensured.append(request.name)
        self.requested_ttls.append(request.ttl_seconds if request.HasField("ttl_seconds") else None)
        self.ensure_requests.append(request)
        self.asked.set()
        async with reported_errors(context):
            try:
                return await self._ensure(request)
            except asyncio.CancelledError:
                self.abandoned.set()
                raise

    async def _ensure(self, request: pb.EnsureInstanceRequest) -> pb.Instance:
        name = request.name
        if self.fail_with:
            raise self.fail_with
        for instance in self.instances.values():
            if name in (instance.id, instance.model_key) and instance.state == pb.READY:
                return instance
        if name not in self._loading:
            self._load_settings[name] = load_values(request.load)
            self._loading[name] = asyncio.create_task(self._load(name))
        return await asyncio.shield(self._loading[name])

    async def _load(self, name: str) -> pb.Instance:
        self.loads += 1
        try:
            if self.hold_loads:
                await self.released.wait()
            known = self.instances.get(name)
            return await self.start_instance(known.model_key if known else name, name, **self._load_settings[name])
        finally:
            del self._loading[name]

    async def CreateInstance(self, request: pb.CreateInstanceRequest, context: Context) -> pb.Instance:
        self.created.append(request)
        async with reported_errors(context):
            if self.fail_with:
                raise self.fail_with
            identifier = request.identifier if request.HasField("identifier") else None
            return await self.start_instance(request.model_key, identifier, **load_values(request.load))

    async def EstimateMemory(self, request: pb.EstimateMemoryRequest, context: Context) -> pb.MemoryEstimate:
        return pb.MemoryEstimate(weights=1000, kv_cache=request.load.context_length, compute=10)

    async def UnloadInstance(self, request: pb.UnloadInstanceRequest, context: Context) -> pb.UnloadInstanceReply:
        async with reported_errors(context):
            if request.instance_id not in self.instances:
                raise InstanceNotFound()
            self.unloaded.append(request.instance_id)
            del self.instances[request.instance_id]
            self.tell(pb.Change(instance_removed=request.instance_id))
            await self.workers.pop(request.instance_id).stop(5)
        return pb.UnloadInstanceReply()

    async def ImportModel(self, request: pb.ImportModelRequest, context: Context) -> pb.Model:
        self.imported.append(request)
        self.import_deadlines.append(context.time_remaining())
        async with reported_errors(context):
            if self.fail_with:
                raise self.fail_with
        model = model_message(request.key or "acme/imported")
        self.models[model.key] = model
        self.tell(pb.Change(model=model))
        return model

    async def RemoveModel(self, request: pb.RemoveModelRequest, context: Context) -> pb.RemoveModelReply:
        async with reported_errors(context):
            if self.fail_with:
                raise self.fail_with
        self.removed.append(request.key)
        del self.models[request.key]
        self.tell(pb.Change(model_removed=request.key))
        return pb.RemoveModelReply()

    async def SearchHub(self, request: pb.SearchHubRequest, context: Context) -> pb.SearchHubReply:
        self.searched.append(request)
        async with reported_errors(context):
            if self.fail_with:
                raise self.fail_with
        return pb.SearchHubReply(repositories=self.found)

    async def StartDownload(self, request: pb.StartDownloadRequest, context: Context) -> pb.StartDownloadReply:
        self.wanted.append(request)
        async with reported_errors(context):
            if self.fail_with:
                raise self.fail_with
        if request.model in self.models:
            return pb.StartDownloadReply(model_key=request.model)
        return pb.StartDownloadReply(download=self.set_download(reference=request.model, state=pb.DOWNLOAD_QUEUED))

    async def ControlDownload(self, request: pb.ControlDownloadRequest, context: Context) -> pb.Download:
        async with reported_errors(context):
            if request.id not in self.downloads:
                raise DownloadNotFound()
        if request.action == pb.ControlDownloadRequest.CANCEL:
            self.tell(pb.Change(download_removed=request.id))
            return self.downloads.pop(request.id)
        paused = request.action == pb.ControlDownloadRequest.PAUSE
        return self.set_download(state=pb.DOWNLOAD_PAUSED if paused else pb.DOWNLOAD_QUEUED)

    async def ListDevices(self, request: pb.ListDevicesRequest, context: Context) -> pb.ListDevicesReply:
        readings = pb.Readings(uuid="GPU-1", utilization_percent=0, temperature_celsius=64)
        gpu = pb.Device(id="cuda:0", description="a GPU", memory_total=24, memory_free=20, readings=readings)
        main = pb.Device(id="cpu", description="main memory", memory_total=8, memory_free=4, instances=[KEY])
        return pb.ListDevicesReply(devices=[gpu, main])

    async def MeasureDisk(self, request: pb.MeasureDiskRequest, context: Context) -> pb.DiskUse:
        async with reported_errors(context):
            if self.fail_with:
                raise self.fail_with
        return pb.DiskUse(
            file_systems=[pb.FileSystem(path="/home/lab/.atelier", total_bytes=1000, free_bytes=300)],
            models=[pb.ModelFiles(key=KEY, size_bytes=90, in_library=False, names=2)],
            downloads=[pb.DownloadFiles(id="d1", size_bytes=40)],
            leftovers=[pb.LeftoverFiles(path="/home/lab/.atelier/models/.downloads/x", size_bytes=30)],
            caches=[
                pb.CacheFiles(directory="acme--tiny~2", instance_id=f"{KEY}:2", size_bytes=20),
                pb.CacheFiles(directory="gone", size_bytes=10),
            ],
            library_bytes=1,
            adapters_bytes=2,
            logs_bytes=3,
            database_bytes=4,
            other_bytes=5,
            used_bytes=6,
        )

    async def DescribeModel(self, request: pb.DescribeModelRequest, context: Context) -> pb.ModelDescription:
        estimate = pb.MemoryEstimate(weights=1000, kv_cache=2048, compute=10)
        return pb.ModelDescription(
            model=self.models[request.key],
            chat_template="{{ messages }}",
            made_for_tools=True,
            licence="mit",
            projector="/models/mmproj.gguf",
            memory=[pb.MemoryAtContext(context_length=2048, estimate=estimate)],
        )

    async def PutPreset(self, request: pb.PutPresetRequest, context: Context) -> pb.Preset:
        versions = self.presets.setdefault(request.preset.name, [])
        async with reported_errors(context):
            if request.HasField("expected_version") and request.expected_version != len(versions):
                raise AlreadyExists() if not request.expected_version else Conflict()
        preset = pb.Preset()
        preset.CopyFrom(request.preset)
        preset.version = len(versions) + 1
        versions.append(preset)
        self.tell(pb.Change(preset=preset))
        return preset

    async def DeletePreset(self, request: pb.DeletePresetRequest, context: Context) -> pb.DeletePresetReply:
        async with reported_errors(context):
            if self.presets.pop(request.name, None) is None:
                raise PresetNotFound()
        self.tell(pb.Change(preset_removed=request.name))
        return pb.DeletePresetReply()

    async def ListPresetVersions(
        self, request: pb.ListPresetVersionsRequest, context: Context
    ) -> pb.ListPresetVersionsReply:
        return pb.ListPresetVersionsReply(versions=reversed(self.presets.get(request.name, [])))

    async def SetReplicas(self, request: pb.SetReplicasRequest, context: Context) -> pb.Model:
        model = self.models[request.model_key]
        model.ClearField("replicas")
        if request.HasField("replicas"):
            model.replicas.CopyFrom(request.replicas)
        self.tell(pb.Change(model=model))
        return model

    async def SetDefaultPreset(self, request: pb.SetDefaultPresetRequest, context: Context) -> pb.Model:
        model = self.models[request.model_key]
        model.default_preset = request.preset
        self.tell(pb.Change(model=model))
        return model

    async def PutResponse(self, request: pb.PutResponseRequest, context: Context) -> pb.PutResponseReply:
        async with reported_errors(context):
            if self.fail_with:
                raise self.fail_with
        self.responses[request.response.id] = request.response
        return pb.PutResponseReply()

    async def GetResponse(self, request: pb.ResponseRequest, context: Context) -> pb.StoredResponse:
        async with reported_errors(context):
            return self._response(request, request.id)

    async def GetConversation(self, request: pb.ResponseRequest, context: Context) -> pb.Conversation:
        async with reported_errors(context):
            responses = [self._response(request, request.id)]
            while responses[0].HasField("previous_id"):
                responses.insert(0, self._response(request, responses[0].previous_id))
            return pb.Conversation(responses=responses)

    async def DeleteResponse(self, request: pb.ResponseRequest, context: Context) -> pb.DeleteResponseReply:
        async with reported_errors(context):
            del self.responses[self._response(request, request.id).id]
        return pb.DeleteResponseReply()

    def _response(self, request: pb.ResponseRequest, id: str) -> pb.StoredResponse:
        response = self.responses.get(id)
        if response is None or (response.owner, response.kind) != (request.owner, request.kind):
            raise ResponseNotFound()
        return response

    def set_download(self, **facts: Any) -> pb.Download:
        """The one download, with these facts changed; every watcher is notified."""
        begun = pb.Download(
            id="d1",
            repo="acme/tiny-gguf",
            commit="c" * 40,
            files=["a.gguf"],
            state=pb.DOWNLOAD_QUEUED,
            total_bytes=1000,
            started_at=1_700_000_000,
        )
        download = pb.Download()
        download.CopyFrom(self.downloads.get("d1", begun))
        download.MergeFrom(pb.Download(**facts))
        self.downloads[download.id] = download
        self.tell(pb.Change(download=download))
        return download


@contextlib.asynccontextmanager
async def fake_registry(directory: Path) -> AsyncIterator[FakeRegistry]:
    registry = FakeRegistry(directory)
    await registry.start()
    try:
        yield registry
    finally:
        await registry.stop()
