"""The calls of one step on their way to their servers, side by side."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

from atelier.errors import AtelierError, MCPConnectionError
from atelier.metrics import GatewayMetrics
from gateway.core.events import Elicited, HostedCallEnded
from gateway.core.hosted_tool import ServerTool, ToolOutput
from gateway.core.mcp_server import Server
from gateway.tools.elicitation.elicitation_forwarding import Asking, CallsQuestions
from gateway.tools.loop.hosted_call import HostedCall
from gateway.tools.mcp_client.pausable_deadline import Clock
from gateway.tools.mcp_client.server_callbacks import Elicit

MOST_AT_ONCE = 8  # calls of one step that run at the same time

TIME_IS_UP = "The time for calling tools is up."
NO_OBJECT = "The arguments are not a JSON object."


class ToolServers(Protocol):
    """The way to the servers: `gateway.tools.mcp_client.connection_pool.ServerPool`. Both raise MCPConnectionError."""

    async def tools(self, server: Server) -> Sequence[ServerTool]: ...

    async def call(
        self, server: Server, tool: str, arguments: Mapping[str, Any], *, elicit: Elicit | None = None
    ) -> ToolOutput: ...


class RunningCalls:
    """Owned by the loop's task, which closes it."""

    def __init__(
        self,
        servers: ToolServers,
        metrics: GatewayMetrics,
        calls: Sequence[HostedCall],
        clock: Clock,
        asking: Asking | None = None,
    ) -> None:
        """`clock`: when it is up, the calls are given up. `asking`: None: the user cannot be asked."""
        self._servers = servers
        self._metrics = metrics
        self._clock = clock
        self._asking = asking
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._heard: asyncio.Queue[Elicited | asyncio.Task[HostedCallEnded] | AtelierError] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._run(call)) for call in calls]
        self._left = len(calls)  # whose ends nobody has heard of
        for task in self._tasks:
            task.add_done_callback(_looked_at)
            task.add_done_callback(self._heard.put_nowait)

    async def next_events(self) -> list[Elicited | HostedCallEnded]:
        """What servers have asked and which calls have ended since the last time; none when all calls have.

        Raises what `fail` was given.
        """
        if not self._left:
            return []
        heard = [await self._heard.get()]
        while not self._heard.empty():
            heard.append(self._heard.get_nowait())
        for each in heard:
            if isinstance(each, AtelierError):
                raise each
        ended = [each.result() for each in heard if isinstance(each, asyncio.Task)]
        self._left -= len(ended)
        asked = [each for each in heard if isinstance(each, Elicited)]
        return [*asked, *sorted(ended, key=lambda each: each.number)]

    def fail(self, error: AtelierError) -> None:
        """Whoever waits for the calls waits no longer."""
        self._heard.put_nowait(error)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _run(self, call: HostedCall) -> HostedCallEnded:
        started = time.monotonic()
        ended = await self._outcome(call)
        self._metrics.count_tool_call(_outcome(ended), time.monotonic() - started)
        return ended

    async def _outcome(self, call: HostedCall) -> HostedCallEnded:
        if (arguments := read_arguments(call.arguments)) is None:
            return call.ended(None, NO_OBJECT)
        try:
            async with self._clock.limit() as limit, self._places:
                server = call.tool.use.server
                output = await self._servers.call(server, call.tool.name, arguments, elicit=self._elicit(call))
                return call.ended(output)
        except MCPConnectionError as error:
            return call.ended(None, error.message)
        except TimeoutError:
            if not limit.expired():
                raise
            return call.ended(None, TIME_IS_UP)

    def _elicit(self, call: HostedCall) -> Elicit | None:
        return CallsQuestions(self._asking, call, self._clock, self._heard.put_nowait) if self._asking else None


def _looked_at(task: asyncio.Task[HostedCallEnded]) -> None:
    """Nobody may be left to whom an error would be raised."""
    if not task.cancelled():
        task.exception()


def read_arguments(arguments: str) -> dict[str, object] | None:
    """None where they are no JSON object."""
    try:
        found = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _outcome(ended: HostedCallEnded) -> str:
    if ended.output is None:
        return "failed"
    return "error" if ended.output.is_error else "ok"
