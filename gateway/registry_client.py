"""What the gateway asks of the registry, with its errors as ours."""

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc.aio

from atelier.config import Config
from atelier.errors import Draining, Unavailable
from atelier.rpc import ERROR_KEY, from_rpc_error, open_channel, token_metadata
from atelier.settings.wire import load_message
from gateway.snapshot import Instance, Model, read_instance, read_model
from protos import registry_pb2 as pb
from protos.registry_pb2_grpc import RegistryStub

ESTIMATE_SECONDS = 10.0
MARGIN_SECONDS = 30.0  # beyond the time that a load may take: the registry is to say first that it took too long


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

    async def ensure(self, name: str, request_id: str) -> Instance:
        """A ready instance for an exact model key or instance id, loaded if need be."""
        request = pb.EnsureInstanceRequest(name=name, request_id=request_id)
        return read_instance(await self._reply(self.stub.EnsureInstance, request, self._load_timeout))

    async def create(
        self, model_key: str, identifier: str | None, load: Mapping[str, Any], request_id: str
    ) -> Instance:
        """One more instance of a model, once it is ready."""
        request = pb.CreateInstanceRequest(
            model_key=model_key, identifier=identifier, load=load_message(load), request_id=request_id
        )
        return read_instance(await self._reply(self.stub.CreateInstance, request, self._load_timeout))

    async def estimate(self, model_key: str, load: Mapping[str, Any]) -> pb.MemoryEstimate:
        """The memory that one more instance of the model would take, in bytes."""
        request = pb.EstimateMemoryRequest(model_key=model_key, load=load_message(load))
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

    async def close(self) -> None:
        """End the calls that are on their way, with Draining, and the channel."""
        self._closed = True
        for call in list(self._calls):
            call.cancel()
        await self._channel.close()

    async def _reply(self, method: Any, request: Any, seconds: float | None) -> Any:
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
