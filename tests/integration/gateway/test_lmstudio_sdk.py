"""LM Studio's SDK protocol, spoken by the unmodified `lmstudio` package."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import lmstudio
import pytest

from tests.support.gateway_registry import KEY, FakeRegistry
from tests.support.gateway_server import PATIENCE, RunningGateway

T = TypeVar("T")


async def with_client(gateway: RunningGateway, work: Callable[[lmstudio.Client], T]) -> T:
    """The work of a blocking client, in a thread of its own."""

    def run() -> T:
        with lmstudio.Client(f"127.0.0.1:{gateway.port}") as client:
            return work(client)

    return await asyncio.wait_for(asyncio.to_thread(run), PATIENCE)


async def test_a_chat_is_answered(gateway: RunningGateway) -> None:
    result = await with_client(gateway, lambda client: client.llm.model("tiny").respond("one two three"))
    assert result.content == "one two three"
    print(result)
