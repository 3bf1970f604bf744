"""The registry's gRPC client of one worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from atelier.rpc import open_channel, token_metadata
from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import InferenceStub

CALL_TIMEOUT_SECONDS = 5.0  # of calls that a worker answers at once
RETRY_SECONDS = 0.1
SOCKET_POLL_SECONDS = 0.005


class WorkerClient:
    """Calls to the worker of one launch. Failed calls raise grpc.aio.AioRpcError."""

    def __init__(self, instance_id: str, address: str, token: str) -> None:
        self._instance_id = instance_id
        self._address = address
        self._metadata = token_metadata(token)
        self._channel = open_channel(address)
        self._stub = InferenceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def statuses(self) -> AsyncIterator[pb.WorkerStatus]:
        """The worker's statuses, until the caller stops iterating. Reconnects after lost connections."""
        await self._socket_exists()
        while True:
            call = self._stub.Supervise(pb.SuperviseRequest(instance_id=self._instance_id), metadata=self._metadata)
            try:
                async for status in call:
                    yield status
            except grpc.aio.AioRpcError:
                pass
            finally:
                call.cancel()
            await asyncio.sleep(RETRY_SECONDS)

    async def is_serving(self) -> bool:
        """By the standard health service."""
        check = self._health.Check  # type: ignore[attr-defined]  # missing in the stubs
        reply = await check(health_pb2.HealthCheckRequest(), timeout=CALL_TIMEOUT_SECONDS)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    async def describe(self) -> pb.WorkerDescription:
        request = pb.DescribeRequest(instance_id=self._instance_id)
        return await self._stub.Describe(request, metadata=self._metadata, timeout=CALL_TIMEOUT_SECONDS)

    async def release_cache(self, size: int) -> int:
        """Bytes of saved prefixes that it freed, of the `size` requested."""
        request = pb.ReleaseCacheRequest(instance_id=self._instance_id, size_bytes=size)
        reply = await self._stub.ReleaseCache(request, metadata=self._metadata, timeout=CALL_TIMEOUT_SECONDS)
        return reply.released_bytes

    async def shut_down(self, grace_seconds: float) -> bool:
        """Ask it to finish its calls and exit; whether it received the request."""
        request = pb.ShutdownRequest(instance_id=self._instance_id, grace_seconds=grace_seconds)
        with suppress(grpc.aio.AioRpcError):
            await self._stub.Shutdown(request, metadata=self._metadata, timeout=CALL_TIMEOUT_SECONDS)
            return True
        return False

    async def close(self) -> None:
        await self._channel.close()

    async def _socket_exists(self) -> None:
        """Wait for the worker's socket: cheaper than refused connections, and noticed sooner."""
        if self._address.startswith("unix:"):
            path = Path(self._address.removeprefix("unix:"))
            while not path.exists():  # noqa: ASYNC110, ASYNC240 - one stat of a local path
                await asyncio.sleep(SOCKET_POLL_SECONDS)
