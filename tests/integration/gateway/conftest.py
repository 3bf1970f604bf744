from collections.abc import AsyncIterator

import openai
import pytest

from tests.support.gateway.gateway_registry import FakeRegistry
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, running_gateway
from tests.support.mcp.tool_server import ToolServer, tool_server


@pytest.fixture
async def gateway(registry: FakeRegistry) -> AsyncIterator[RunningGateway]:
    async with running_gateway(registry) as running:
        yield running


@pytest.fixture
async def server() -> AsyncIterator[ToolServer]:
    async with tool_server() as running:
        yield running


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{gateway.url}/v1", api_key="none", timeout=PATIENCE, max_retries=0, http_client=gateway.client()
    ) as opened:
        yield opened
