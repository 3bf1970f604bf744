"""When the server answers, and what it then says of itself."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from atelier.cli.address import local_url
from atelier.config import Config

POLL_SECONDS = 0.05
PROBE_SECONDS = 2.0


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Returns when the check succeeds."""
    while True:
        if await check():
            return
        await asyncio.sleep(POLL_SECONDS)


async def registry_serves(target: str) -> bool:
    """The registry's health, as gRPC defines it."""
    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_health.v1.health_pb2_grpc import HealthStub

    from atelier.rpc import open_channel

    async with open_channel(target) as channel:
        stub: Any = HealthStub(channel)
        try:
            reply = await stub.Check(HealthCheckRequest(), timeout=PROBE_SECONDS)
        except grpc.aio.AioRpcError:
            return False
    return bool(reply.status == HealthCheckResponse.SERVING)


class GatewayProbe:
    """Asks the gateway, as a client on this machine."""

    def __init__(self, config: Config) -> None:
        key = config.api_key.get_secret_value() if config.api_key else None
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.AsyncClient(
            base_url=local_url(config.host, config.port), headers=headers, timeout=PROBE_SECONDS, trust_env=False
        )

    async def is_ready(self) -> bool:
        try:
            return (await self._http.get("/readyz")).is_success
        except httpx.TransportError:
            return False

    async def model_keys(self) -> list[str]:
        reply: dict[str, Any] = (await self._http.get("/api/v1/models")).raise_for_status().json()
        return [model["key"] for model in reply["models"]]

    async def close(self) -> None:
        await self._http.aclose()
