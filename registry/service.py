"""The registry's gRPC service: translates, and calls those who know."""

import asyncio
from collections.abc import AsyncIterator

from atelier.rpc import Context, reported_errors
from atelier.settings.wire import load_values
from protos import registry_pb2 as pb
from protos.registry_pb2_grpc import RegistryServicer as GeneratedServicer
from registry.feed import Feed
from registry.instances.load import estimate_for
from registry.instances.pool import Pool
from registry.models.adapters import AdapterFolder, memory_of
from registry.models.catalogue import Catalogue
from registry.models.importing import check_import
from registry.wire import MODES, change_message, estimate_message, instance_message, model_message


class RegistryServicer(GeneratedServicer):
    """Thin: every decision is the catalogue's or the pool's."""

    def __init__(self, catalogue: Catalogue, adapters: AdapterFolder, pool: Pool, feed: Feed) -> None:
        self._catalogue = catalogue
        self._adapters = adapters
        self._pool = pool
        self._feed = feed

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.Change]:
        async with reported_errors(context):
            async for change in self._feed.follow():
                yield change_message(change)

    async def EnsureInstance(self, request: pb.EnsureInstanceRequest, context: Context) -> pb.Instance:
        async with reported_errors(context):
            return instance_message(await self._pool.ensure(request.name))

    async def CreateInstance(self, request: pb.CreateInstanceRequest, context: Context) -> pb.Instance:
        async with reported_errors(context):
            identifier = request.identifier if request.HasField("identifier") else None
            instance = await self._pool.create(request.model_key, identifier, load_values(request.load))
            return instance_message(instance)

    async def EstimateMemory(self, request: pb.EstimateMemoryRequest, context: Context) -> pb.MemoryEstimate:
        async with reported_errors(context):
            model = self._catalogue.require(request.model_key)
            values = load_values(request.load)
            estimate = estimate_for(model, values, self._catalogue.find)
            adapters = await self._adapters.find(model, values.get("lora", []))
            return estimate_message(estimate + memory_of(adapters))

    async def UnloadInstance(self, request: pb.UnloadInstanceRequest, context: Context) -> pb.UnloadInstanceReply:
        async with reported_errors(context):
            grace = request.grace_seconds if request.HasField("grace_seconds") else None
            await self._pool.unload(request.instance_id, grace)
            return pb.UnloadInstanceReply()

    async def ImportModel(self, request: pb.ImportModelRequest, context: Context) -> pb.Model:
        async with reported_errors(context):
            key = request.key if request.HasField("key") else None
            wanted = await asyncio.to_thread(check_import, request.path, key, MODES[request.mode])
            return model_message(await self._catalogue.import_model(wanted))
