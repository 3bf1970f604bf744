"""The official client of MCP on a gateway under test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.support.gateway.gateway_server import PATIENCE

MODES = ("auto", "legacy")  # the protocol of 2026, and the handshake's


@contextlib.asynccontextmanager
async def mcp_client(url: str, mode: str = "auto", **options: Any) -> AsyncIterator[Client]:
    """`options`: of the HTTP client, such as headers."""
    # No certificates: reading them takes longer than most tests.
    async with httpx2.AsyncClient(timeout=PATIENCE, trust_env=False, verify=False, **options) as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport, mode=mode, read_timeout_seconds=PATIENCE) as client:
            yield client


@contextlib.asynccontextmanager
async def held_mcp_client(url: str, mode: str = "auto") -> AsyncIterator[Client]:
    """The same for fixtures, which begin and end in different tasks: the client's scopes must not."""
    opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
    ended = asyncio.Event()

    async def hold() -> None:
        async with mcp_client(url, mode) as client:
            opened.set_result(client)
            await ended.wait()

    holding = asyncio.create_task(hold())
    await asyncio.wait([opened, holding], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield opened.result()
    finally:
        ended.set()
        await holding
