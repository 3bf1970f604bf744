"""Starts answers that may call tools of MCP servers."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

from atelier.errors import AtelierError, InvalidRequest
from atelier.json_types import Json
from atelier.metrics import GatewayMetrics
from atelier.submission import Constraint, Tools
from gateway.core.account import Account
from gateway.core.call import Call, Origin
from gateway.core.ending import Ending
from gateway.core.events import Event, HostedCallArguments, HostedCallBegun, HostedCallEnded, HostedCallRuns
from gateway.core.generation import Generation
from gateway.core.inference import Inference
from gateway.core.mcp_server import Servers, Use
from gateway.tools.elicitation.elicitation_forwarding import Asking
from gateway.tools.loop.hosted_call import HostedCall
from gateway.tools.loop.image_budget import ImageRoom
from gateway.tools.loop.requested_server import Wish, find_uses
from gateway.tools.loop.running_calls import RunningCalls, ToolServers
from gateway.tools.loop.step_messages import result_message
from gateway.tools.loop.tool_loop import LoopLimits, ToolLoop, with_messages
from gateway.tools.loop.toolset import Listing, Toolset, make_toolset
from gateway.tools.mcp_client.pausable_deadline import Clock

MOST_TOOLS = 1024  # of one request's servers together

Resumed = Callable[[Sequence[Json]], Call]
"""The call with the tool messages of the approved calls in their places."""


class ToolHost:
    """What the dialects ask for servers' tools: first the tools there are, then the answer that may call them."""

    def __init__(
        self,
        inference: Inference,
        servers: ToolServers,
        operators: Callable[[], Servers],
        metrics: GatewayMetrics,
        limits: LoopLimits,
        *,
        own_servers: bool,
    ) -> None:
        """`operators`: the servers that mcp.json has now. `own_servers`: whether requests may name others."""
        self._inference = inference
        self._servers = servers
        self._operators = operators
        self._metrics = metrics
        self._limits = limits
        self._own_servers = own_servers
        self._ending = Ending()
        self._loops: set[ToolLoop] = set()

    def end_all(self, error: AtelierError) -> None:
        """Every answer that is on its way ends with this error: where it calls tools, and before it has begun."""
        self._ending.end_all(error)
        for loop in list(self._loops):
            loop.fail(error)

    async def toolset(
        self, wishes: Sequence[Wish], owner: str, *, taken: Collection[str] = (), asks: bool = False
    ) -> Toolset:
        """What the servers offer; InvalidRequest, Forbidden, MCPConnectionError.

        `taken`: names of the client's own functions. `asks`: the dialect can ask for approval; otherwise
        tools that need it are not offered.
        """
        uses = find_uses(wishes, self._operators(), owner, own_servers=self._own_servers)
        async with self._ending.until_ended():
            listings = await asyncio.gather(*(self._list(use, asks=asks) for use in uses))
        if (count := sum(len(listing.tools) for listing in listings)) > MOST_TOOLS:
            raise InvalidRequest(f"tools: the MCP servers have {count} together, of which {MOST_TOOLS} may be offered")
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
        asking: Asking | None = None,
        whole: bool = False,
    ) -> ToolLoop:
        """An answer that has yet to begin; the caller closes it. The call's tools include the toolset's.

        `constraint`: of the steps after the first, whose tools may be forced. `approved`: calls that run before all
        else, at the chat's end unless `resumed` says where. `most_calls`: the request's own limit. `asking`: who
        answers what servers ask the user; None: nobody does. `whole`: the client gets everything at the end.
        """
        sees = self._inference.check(call, origin).model.made_for_vision
        limits, room = self._limits_of(call, account, most_calls), ImageRoom(call.images)
        clock = Clock(limits.seconds, limits.latest)
        # One place for all of the answer: what its tools have done would be lost if a later step found none.
        place = self._inference.enter()
        try:
            told: list[Event] = []
            if approved:
                ended = [room.fitted(each) for each in await self._run_first(approved, clock)]
                results = [result_message(each, sees=sees) for each in ended]
                call = free_to_call(resumed(results) if resumed else with_messages(call, results), constraint)
                told = [event for each in ended for event in _as_told(each)]
            first = await self._inference.admit(call, origin, account, place)
        except BaseException:
            place.leave()
            raise

        async def start(later: Call) -> Generation:
            return await self._inference.start(later, origin, account, place)

        def on_close(closed: ToolLoop) -> None:
            self._loops.discard(closed)
            place.leave()

        later, run = free_to_call(call, constraint), partial(self._run, asking=asking)
        loop = ToolLoop(first, later, toolset, start, run, limits, clock, room, on_close, told=told, whole=whole)
        self._loops.add(loop)
        return loop

    async def _list(self, use: Use, *, asks: bool) -> Listing:
        tools = await self._servers.tools(use.server)
        offered = [
            tool
            for tool in tools
            if use.allows(tool.name, tool.annotations) and (asks or not use.approval.wanted(tool.name))
        ]
        return Listing(use, offered)

    async def _run_first(self, calls: Sequence[HostedCall], clock: Clock) -> list[HostedCallEnded]:
        running = self._run(calls, clock)
        found: list[HostedCallEnded] = []
        try:
            async with self._ending.until_ended():
                while events := await running.next_events():
                    found += [event for event in events if isinstance(event, HostedCallEnded)]
        finally:
            running.close()
        return sorted(found, key=lambda each: each.number)

    def _run(self, calls: Sequence[HostedCall], clock: Clock, *, asking: Asking | None = None) -> RunningCalls:
        return RunningCalls(self._servers, self._metrics, calls, clock, asking)

    def _limits_of(self, call: Call, account: Account, most_calls: int | None) -> LoopLimits:
        """No longer than the request may take."""
        limits = self._limits
        if most_calls is not None:
            limits = replace(limits, calls=min(most_calls, limits.calls))
        if call.timeout is None:
            return limits
        left = max(0.0, call.timeout - account.seconds())
        return replace(limits, seconds=min(left, limits.seconds), latest=left)


def free_to_call(call: Call, constraint: Constraint | None) -> Call:
    """What is forced of the first step is free in the next ones, which would never end otherwise."""
    tools = call.tools and Tools(call.tools.tools, one_at_a_time=call.tools.one_at_a_time)
    return replace(call, tools=tools, constraint=call.constraint or constraint)


def _as_told(ended: HostedCallEnded) -> list[Event]:
    """A call that ran before the answer began, as the client would have got it on the way."""
    begun = HostedCallBegun(0, ended.number, ended.id, ended.tool)
    words = [HostedCallArguments(0, ended.number, ended.arguments)] if ended.arguments else []
    return [begun, *words, HostedCallRuns(0, ended.number, ended.arguments), ended]
