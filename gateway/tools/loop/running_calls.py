"""The calls of one step, running at their servers concurrently."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from atelier.errors import AtelierError, MCPConnectionError
from atelier.metrics import GatewayMetrics
from gateway.core.events import Elicited, HostedCallEnded
from gateway.core.hosted_tool import ServerTool, ToolOutput
from gateway.core.mcp_server_config import ServerConfig
from gateway.core.question import Question
from gateway.tools.elicitation import CallElicitation, Respondent
from gateway.tools.loop.toolset import HostedCall, read_arguments
from gateway.tools.mcp_client.pausable_deadline import PausableDeadline, retrieve_exception
from gateway.tools.mcp_client.server_callbacks import ElicitationHandler

MOST_AT_ONCE = 8  # calls of one step

TIME_IS_UP = "The time limit for calling tools has passed."
NOT_AN_OBJECT = "The arguments are not a JSON object."


class ToolServers(Protocol):
    """The way to the servers, such as `ServerPool`. Both methods raise MCPConnectionError."""

    async def tools(self, server: ServerConfig) -> Sequence[ServerTool]: ...

    async def call(
        self,
        server: ServerConfig,
        tool: str,
        arguments: Mapping[str, object],
        *,
        elicit: ElicitationHandler | None = None,
    ) -> ToolOutput: ...


class RunningCalls:
    """Owned by the loop's task, which closes it."""

    def __init__(
        self,
        servers: ToolServers,
        metrics: GatewayMetrics,
        calls: Sequence[HostedCall],
        deadline: PausableDeadline,
        respondent: Respondent | None = None,
    ) -> None:
        """`deadline`: when it passes, the calls are cancelled. `respondent`: None if the user cannot be asked."""
        self._servers = servers
        self._metrics = metrics
        self._deadline = deadline
        self._respondent = respondent
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._updates: asyncio.Queue[Elicited | asyncio.Task[HostedCallEnded] | AtelierError] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._run(call)) for call in calls]
        self._unreported = len(calls)  # whose ends `next_events` has not returned
        for task in self._tasks:
            task.add_done_callback(retrieve_exception)
            task.add_done_callback(self._updates.put_nowait)

    async def next_events(self) -> list[Elicited | HostedCallEnded]:
        """Questions asked and calls ended since the last time; empty when all calls have ended.

        Raises the error given to `fail`.
        """
        if not self._unreported:
            return []
        updates = [await self._updates.get()]
        while not self._updates.empty():
            updates.append(self._updates.get_nowait())
        for each in updates:
            if isinstance(each, AtelierError):
                raise each
        ended = [each.result() for each in updates if isinstance(each, asyncio.Task)]
        self._unreported -= len(ended)
        asked = [each for each in updates if isinstance(each, Elicited)]
        return [*asked, *sorted(ended, key=lambda each: each.number)]

    def fail(self, error: AtelierError) -> None:
        """Makes `next_events` raise the error."""
        self._updates.put_nowait(error)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _run(self, call: HostedCall) -> HostedCallEnded:
        started = time.monotonic()
        ended = await self._ended(call)
        self._metrics.count_tool_call(_outcome(ended), time.monotonic() - started)
        return ended

    async def _ended(self, call: HostedCall) -> HostedCallEnded:
        if (arguments := read_arguments(call.arguments)) is None:
            return call.ended(None, NOT_AN_OBJECT)
        try:
            async with self._deadline.timeout() as timeout, self._slots:
                server = call.tool.use.server
                output = await self._servers.call(server, call.tool.name, arguments, elicit=self._elicit(call))
                return call.ended(output)
        except MCPConnectionError as error:
            return call.ended(None, error.message)
        except TimeoutError:
            if not timeout.expired():
                raise
            return call.ended(None, TIME_IS_UP)

    def _elicit(self, call: HostedCall) -> ElicitationHandler | None:
        if self._respondent is None:
            return None

        def on_asked(id: str, question: Question) -> None:
            self._updates.put_nowait(Elicited(0, call.number, call.id, call.tool, id, question))

        return CallElicitation(self._respondent, call.tool.name, self._deadline, on_asked)


def _outcome(ended: HostedCallEnded) -> str:
    """As the metric's label has it."""
    if ended.output is None:
        return "failed"
    return "error" if ended.output.is_error else "ok"
