"""`atelier mcp` in front of a gateway in this process, started by the official client as desktop programs start it."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.subscriptions import ResourcesListChanged
from mcp_types import TextContent

from tests.support.command.server_process import ATELIER
from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, running_gateway, until
from tests.support.mcp.mcp_client import MODES

START_SECONDS = 60.0  # until a process answers, on a busy machine
LONG = {"text": "word " * 100_000, "step_seconds": 0.001}


@pytest.fixture
async def gateway(registry: FakeRegistry) -> AsyncIterator[RunningGateway]:
    async with running_gateway(registry, api_key="right") as running:
        yield running


def environment(url: str, key: str = "right") -> dict[str, str]:
    return {**os.environ, "ATELIER_URL": url, "ATELIER_API_KEY": key}


@contextlib.asynccontextmanager
async def desktop(url: str, mode: str = "auto") -> AsyncIterator[Client]:
    command = StdioServerParameters(command=str(ATELIER), args=["mcp"], env=environment(url))
    async with Client(command, mode=mode, read_timeout_seconds=START_SECONDS) as client:
        yield client


def active(registry: FakeRegistry) -> int:
    return registry.workers[KEY].engine.figures().active if KEY in registry.workers else 0


@pytest.mark.parametrize("mode", MODES)
async def test_every_kind_of_message_is_forwarded(gateway: RunningGateway, registry: FakeRegistry, mode: str) -> None:
    registry.script = {"text": "one two three", "step_seconds": 0.01}
    received: list[Any] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        received.append(message)

    async with desktop(gateway.url, mode) as client:
        assert client.instructions
        assert {tool.name for tool in (await client.list_tools()).tools} >= {"chat", "embed", "list_models"}
        result = await client.call_tool("chat", {"model": KEY, "prompt": "x"}, progress_callback=on_progress)
        assert [each.text for each in result.content if isinstance(each, TextContent)] == ["one two three"]
        await until(lambda: "".join(received) == "one two three")
        assert (await client.call_tool("chat", {"model": "nothing", "prompt": "x"})).is_error
        assert "atelier://models" in {resource.uri for resource in (await client.list_resources()).resources}
        assert (await client.list_resource_templates()).resource_templates
        assert (await client.read_resource(f"atelier://models/{KEY}")).contents
        assert (await client.list_prompts()).prompts == []
        with pytest.raises(MCPError, match="There is no resource"):
            await client.read_resource("atelier://models/nothing")


@pytest.mark.parametrize("mode", MODES)
async def test_a_cancelled_call_frees_the_sequence(gateway: RunningGateway, registry: FakeRegistry, mode: str) -> None:
    registry.script = LONG
    async with desktop(gateway.url, mode) as client:
        call = asyncio.create_task(client.call_tool("chat", {"model": KEY, "prompt": "x"}))
        await until(lambda: active(registry) == 1)
        call.cancel()
        await until(lambda: active(registry) == 0)
        await asyncio.wait([call])
        assert (await client.list_tools()).tools


async def test_a_program_that_disconnects_frees_the_sequence(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = LONG
    async with desktop(gateway.url) as client:
        call = asyncio.create_task(client.call_tool("chat", {"model": KEY, "prompt": "x"}))
        await until(lambda: active(registry) == 1)
    await until(lambda: active(registry) == 0)
    await asyncio.wait([call])


async def test_changes_are_announced(gateway: RunningGateway, registry: FakeRegistry) -> None:
    async with desktop(gateway.url) as client, client.listen(resources_list_changed=True) as received:
        await registry.start_instance()
        assert await asyncio.wait_for(anext(received), PATIENCE) == ResourcesListChanged()


async def test_a_restarted_server_is_found_again(registry: FakeRegistry) -> None:
    async with running_gateway(registry, api_key="right") as first:
        bridge = contextlib.AsyncExitStack()
        client = await bridge.enter_async_context(desktop(first.url))
        assert (await client.list_tools()).tools
    async with bridge:
        with pytest.raises(MCPError, match="start one with: atelier serve"):
            await client.list_tools()
        async with running_gateway(registry, api_key="right", port=first.port):
            assert (await client.list_tools()).tools


@pytest.mark.parametrize(
    ("url", "shown"),
    [("http://127.0.0.1:9", "No server at http://127.0.0.1:9: start one with: atelier serve"), ("", "ATELIER_API_KEY")],
)
async def test_connection_errors_are_reported_on_stderr(gateway: RunningGateway, url: str, shown: str) -> None:
    ended = await asyncio.to_thread(
        subprocess.run,
        [str(ATELIER), "mcp"],
        env=environment(url or gateway.url, "wrong"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert shown in ended.stderr
