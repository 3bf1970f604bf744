"""The calls of one step on their way to their servers, side by side."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from atelier.errors import MCPConnectionError
from atelier.metrics import GatewayMetrics
from gateway.events import HostedCallEnded
from gateway.mcp_host.server import Server
from gateway.mcp_host.tool import HostedTool, ServerTool, ToolOutput

MOST_AT_ONCE = 8  # calls of one step that run at the same time

TIME_IS_UP = "The time for calling tools is up."
NO_OBJECT = "The arguments are not a JSON object."


class ToolServers(Protocol):
    """The way to the servers: `gateway.mcp_host.pool.ServerPool`. Both raise MCPConnectionError."""

    async def tools(self, server: Server) -> Sequence[ServerTool]: ...

    async def call(self, server: Server, tool: str, arguments: Mapping[str, Any]) -> ToolOutput: ...


@dataclass(frozen=True, slots=True)
class HostedCall:
    """A complete call. `number`: of the call in its answer."""

    number: int
    id: str
    tool: HostedTool
    arguments: str

    def ended(self, output: ToolOutput | None, error: str = "") -> HostedCallEnded:
        return HostedCallEnded(0, self.number, self.id, self.tool, self.arguments, output, error)


class RunningCalls:
    """Owned by the loop's task, which closes it."""

    def __init__(
        self, servers: ToolServers, metrics: GatewayMetrics, calls: Sequence[HostedCall], until: float
    ) -> None:
        """`until`: on the monotonic clock, when the calls are given up."""
        self._servers = servers
        self._metrics = metrics
        self._until = until
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._tasks = {asyncio.create_task(self._run(call)) for call in calls}

    async def next_ended(self) -> list[HostedCallEnded]:
        """Those that have ended since the last time, at least one; none when all have."""
        if not self._tasks:
            return []
        done, self._tasks = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        return sorted((task.result() for task in done), key=lambda ended: ended.number)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _run(self, call: HostedCall) -> HostedCallEnded:
        started = time.monotonic()
        ended = await self._outcome(call)
        self._metrics.count_tool_call(_outcome(ended), time.monotonic() - started)
        return ended

    async def _outcome(self, call: HostedCall) -> HostedCallEnded:
        if (arguments := _object(call.arguments)) is None:
            return call.ended(None, NO_OBJECT)
        try:
            async with asyncio.timeout(self._until - time.monotonic()) as bounds, self._places:
                server = call.tool.use.server
                return call.ended(await self._servers.call(server, call.tool.name, arguments))
        except MCPConnectionError as error:
            return call.ended(None, error.message)
        except TimeoutError:
            if not bounds.expired():
                raise
            return call.ended(None, TIME_IS_UP)


def _object(arguments: str) -> dict[str, object] | None:
    try:
        found = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _outcome(ended: HostedCallEnded) -> str:
    if ended.output is None:
        return "failed"
    return "error" if ended.output.is_error else "ok"
