"""Answers that call tools: names, and calls that fail."""

import asyncio
import gc
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from atelier.errors import Draining
from atelier.metrics import GatewayMetrics
from gateway.core.hosted_tool import HostedTool, ServerTool, ToolOutput
from gateway.core.mcp_server_config import Command, ServerConfig, Use
from gateway.tools.loop.running_calls import RunningCalls
from gateway.tools.loop.toolset import LONGEST_NAME, HostedCall, ServerListing, make_toolset
from gateway.tools.mcp_client.pausable_deadline import PausableDeadline
from gateway.tools.mcp_client.server_callbacks import ElicitationHandler

USE = Use(ServerConfig("notes", Command("notes")))


class Servers:
    """Servers whose calls fail unexpectedly, or never end."""

    async def tools(self, server: ServerConfig) -> Sequence[ServerTool]:
        raise NotImplementedError

    async def call(
        self, server: ServerConfig, tool: str, arguments: Mapping[str, Any], *, elicit: ElicitationHandler | None = None
    ) -> ToolOutput:
        if tool == "wait":
            try:
                await asyncio.Event().wait()
            finally:
                raise RuntimeError("while it was cancelled")
        raise RuntimeError(tool)


def running(*names: str) -> RunningCalls:
    calls = [HostedCall(i, f"c{i}", HostedTool(name, USE, ServerTool(name)), "{}") for i, name in enumerate(names)]
    return RunningCalls(Servers(), GatewayMetrics(CollectorRegistry()), calls, PausableDeadline(10))


def complaints() -> list[dict[str, Any]]:
    """Collects what the event loop reports from now on, such as exceptions that were never retrieved."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


async def test_calls_that_fail_unexpectedly_leave_no_tasks_behind() -> None:
    found, calls = complaints(), running("one", "two", "wait")
    with pytest.raises(RuntimeError):
        await calls.next_events()
    calls.close()
    for _ in range(3):
        await asyncio.sleep(0)
    del calls
    gc.collect()
    assert not found


async def test_waiting_for_calls_can_be_interrupted_by_an_error() -> None:
    calls = running("wait")
    waiting = asyncio.create_task(calls.next_events())
    await asyncio.sleep(0)
    calls.fail(Draining())
    calls.fail(Draining())
    with pytest.raises(Draining):
        await waiting
    calls.close()
    await asyncio.sleep(0)


def test_thousands_of_similar_names_are_made_unique_quickly() -> None:
    tools = [ServerTool(f"{'n' * 70}{chr(0x4E00 + number)}") for number in range(512)]
    alike = [ServerTool(f"a{chr(0x4E00 + number)}") for number in range(512)]
    uses = [Use(ServerConfig(f"s{number % 2}", Command("c"))) for number in range(16)]
    started = time.perf_counter()
    toolset = make_toolset([ServerListing(use, [*tools, *alike]) for use in uses], taken=["a_"])
    assert time.perf_counter() - started < 1
    assert len(toolset.tools) == 16 * 1024
    assert max(map(len, toolset.tools)) <= LONGEST_NAME


def test_a_name_used_by_another_tool_gets_a_number() -> None:
    tools = [ServerTool("read"), ServerTool("a.b"), ServerTool("a-b"), ServerTool("a b"), ServerTool("a/b")]
    toolset = make_toolset([ServerListing(USE, tools)], taken=["read", "notes_read"])
    assert list(toolset.tools) == ["notes_read_2", "notes_a_b", "a-b", "notes_a_b_2", "notes_a_b_3"]
    assert toolset.find("notes", "a/b") is toolset.tools["notes_a_b_3"]
    assert toolset.find("notes", "c") is None
