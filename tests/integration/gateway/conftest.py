from collections.abc import AsyncIterator

import pytest

from tests.support.gateway_registry import FakeRegistry, fake_registry
from tests.support.gateway_server import RunningGateway, running_gateway, short_directory


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    with short_directory() as directory:
        async with fake_registry(directory) as running:
            yield running


@pytest.fixture
async def gateway(registry: FakeRegistry) -> AsyncIterator[RunningGateway]:
    async with running_gateway(registry) as running:
        yield running
