"""Starts answers that may call tools of MCP servers."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

from atelier.errors import AtelierError, InvalidRequest
from atelier.json_types import Json
from atelier.metrics import GatewayMetrics
from atelier.submission import Constraint
from gateway.core.admission import RunningWork
from gateway.core.call import Account, Call, Origin
from gateway.core.events import Event, HostedCallArguments, HostedCallBegun, HostedCallEnded, HostedCallRuns
from gateway.core.generation import Generation
from gateway.core.inference import InferenceCore
from gateway.core.mcp_server_config import Servers, Use
from gateway.tools.elicitation import Respondent
from gateway.tools.loop.loop_policy import LoopBudget, LoopLimits, unforced, with_messages
from gateway.tools.loop.running_calls import RunningCalls, ToolServers
from gateway.tools.loop.server_selection import RequestedServer, find_uses
from gateway.tools.loop.step_messages import ImageBudget, result_message
from gateway.tools.loop.tool_loop import ToolLoop
from gateway.tools.loop.toolset import HostedCall, ServerListing, Toolset, make_toolset
from gateway.tools.mcp_client.pausable_deadline import PausableDeadline

MOST_TOOLS = 1024  # of one request's servers together

Resumed = Callable[[Sequence[Json]], Call]
"""The call with the results of the approved calls, as tool messages, in their places."""


class ToolHost:
    """The dialects' entry to servers' tools: `toolset` first, then `admit` for the answer that may call them."""

    def __init__(
        self,
        inference: InferenceCore,
        servers: ToolServers,
        operators: Callable[[], Servers],
        metrics: GatewayMetrics,
        limits: LoopLimits,
        *,
        own_servers: bool,
    ) -> None:
        """`operators`: returns mcp.json's current servers. `own_servers`: whether requests may name others."""
        self._inference = inference
        self._servers = servers
        self._operators = operators
        self._metrics = metrics
        self._limits = limits
        self._own_servers = own_servers
        self._running = RunningWork()
        self._loops: set[ToolLoop] = set()

    def end_all(self, error: AtelierError) -> None:
        """Ends every answer with this error, also those that call tools or have not begun yet."""
        self._running.fail_all(error)
        for loop in list(self._loops):
            loop.fail(error)

    async def toolset(
        self, requested: Sequence[RequestedServer], owner: str, *, taken: Collection[str] = (), approvals: bool = False
    ) -> Toolset:
        """The tools that the servers offer. Raises InvalidRequest, Forbidden, MCPConnectionError.

        `taken`: names of the client's own functions. `approvals`: whether the dialect can ask for approval; otherwise
        tools that need it are not offered.
        """
        uses = find_uses(requested, self._operators(), owner, own_servers=self._own_servers)
        async with self._running.tracked():
            listings = await asyncio.gather(*(self._list(use, approvals=approvals) for use in uses))
        if (count := sum(len(listing.tools) for listing in listings)) > MOST_TOOLS:
            raise InvalidRequest(f"tools: the MCP servers offer {count} together, and a request may use {MOST_TOOLS}")
        return make_toolset(listings, taken)

    async def admit(
        self,
        call: Call,
        toolset: Toolset,
        origin: Origin,
        account: Account,
        *,
        constraint: Constraint | None = None,
        approved: Sequence[HostedCall] = (),
        resumed: Resumed | None = None,
        most_calls: int | None = None,
        respondent: Respondent | None = None,
        whole: bool = False,
    ) -> ToolLoop:
        """An answer that has not begun; the caller closes it. The call's tools include the toolset's.

        `constraint`: of the steps after the first, whose tools may be forced. `approved`: calls that run first; their
        results follow the chat unless `resumed` places them. `most_calls`: the request's own limit. `respondent`:
        answers servers' questions; None: they are declined. `whole`: the client gets nothing before the answer's end.
        """
        vision = self._inference.check(call, origin).model.made_for_vision
        limits, images = self._limits_of(call, account, most_calls), ImageBudget(call.images)
        deadline = PausableDeadline(limits.seconds, limits.latest)
        # One slot for the whole answer: if a later step found none free, the work of its tools would be lost.
        slot = self._inference.enter()
        try:
            ended: list[HostedCallEnded] = []
            if approved:
                ended = [images.fitted(each) for each in await self._run_approved(approved, deadline)]
                results = [result_message(each, vision=vision) for each in ended]
                call = unforced(resumed(results) if resumed else with_messages(call, results), constraint)
            first = await self._inference.admit(call, origin, account, slot)
        except BaseException:
            slot.leave()
            raise

        async def start(later: Call) -> Generation:
            return await self._inference.start(later, origin, account, slot)

        def on_close(closed: ToolLoop) -> None:
            self._loops.discard(closed)
            slot.leave()

        later, run = unforced(call, constraint), partial(self._run, respondent=respondent)
        budget = LoopBudget(limits, deadline, calls=len(ended))
        replay = [event for each in ended for event in _replayed(each)]
        loop = ToolLoop(first, later, toolset, start, run, budget, images, on_close, replay=replay, whole=whole)
        self._loops.add(loop)
        return loop

    async def _list(self, use: Use, *, approvals: bool) -> ServerListing:
        tools = await self._servers.tools(use.server)
        offered = [
            tool
            for tool in tools
            if use.allows(tool.name, tool.annotations) and (approvals or not use.approval.wanted(tool.name))
        ]
        return ServerListing(use, offered)

    async def _run_approved(self, calls: Sequence[HostedCall], deadline: PausableDeadline) -> list[HostedCallEnded]:
        running = self._run(calls, deadline)
        ended: list[HostedCallEnded] = []
        try:
            async with self._running.tracked():
                while events := await running.next_events():
                    ended += [event for event in events if isinstance(event, HostedCallEnded)]
        finally:
            running.close()
        return sorted(ended, key=lambda each: each.number)

    def _run(
        self, calls: Sequence[HostedCall], deadline: PausableDeadline, *, respondent: Respondent | None = None
    ) -> RunningCalls:
        return RunningCalls(self._servers, self._metrics, calls, deadline, respondent)

    def _limits_of(self, call: Call, account: Account, most_calls: int | None) -> LoopLimits:
        """The server's, restricted by the request's own limit of calls and its timeout."""
        limits = self._limits
        if most_calls is not None:
            limits = replace(limits, calls=min(most_calls, limits.calls))
        if call.timeout is None:
            return limits
        left = max(0.0, call.timeout - account.seconds())
        return replace(limits, seconds=min(left, limits.seconds), latest=left)


def _replayed(ended: HostedCallEnded) -> list[Event]:
    """The events of a call that ran before the answer began, as if it had run in the answer."""
    begun = HostedCallBegun(0, ended.number, ended.id, ended.tool)
    arguments = [HostedCallArguments(0, ended.number, ended.arguments)] if ended.arguments else []
    return [begun, *arguments, HostedCallRuns(0, ended.number, ended.arguments), ended]
