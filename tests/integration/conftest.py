from collections.abc import AsyncIterator

import pytest

from tests.support.gateway.gateway_registry import FakeRegistry, fake_registry
from tests.support.gateway.gateway_server import short_directory


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    """A registry whose behaviour the test scripts."""
    with short_directory() as directory:
        async with fake_registry(directory) as running:
            yield running
