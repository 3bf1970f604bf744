"""An answer that goes on after each call of a server's tool."""

import itertools
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from atelier.errors import AtelierError
from atelier.tools import Tools
from gateway.call import Call, Chat, Plan
from gateway.effective import Effective
from gateway.events import (
    Completion,
    Dropped,
    Event,
    Finished,
    HostedCallEnded,
    HostedCallRuns,
    Statistics,
    StopReason,
    completion_events,
)
from gateway.generation import Generation
from gateway.mcp_host.clock import Clock
from gateway.snapshot import Instance
from gateway.tool_loop.hosted_call import HostedCall
from gateway.tool_loop.messages import step_messages
from gateway.tool_loop.running import RunningCalls
from gateway.tool_loop.step import Step
from gateway.tool_loop.toolset import Toolset

NO_MORE = "This answer may not call more tools."

Start = Callable[[Call], Awaitable[Generation]]
"""A generation of a call that a worker has accepted."""

Run = Callable[[Sequence[HostedCall], Clock], RunningCalls]
"""Sends calls to their servers, until the clock is up."""


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """Of one answer."""

    steps: int = 16  # generations; the last may call no server
    calls: int = 64
    seconds: float = 300.0  # after which tools are no longer called, but for the time that users take to answer
    latest: float = math.inf  # seconds after which they are not, whatever users take


class ToolLoop:
    """Owned by the request's task, which closes it; used like a generation of one choice.

    admitted --begin--> generating --its calls are complete--> running --all have ended--> generating ...
                            '--it ends without any, or with what the client must do--> ended
    """

    def __init__(
        self,
        first: Generation,
        later: Call,
        toolset: Toolset,
        start: Start,
        run: Run,
        limits: LoopLimits,
        *,
        told: Sequence[Event] = (),
        whole: bool = False,
    ) -> None:
        """`later`: what the steps after the first go on from. `told`: what the client gets before anything else.

        `whole`: nothing is sent before the answer's end, so that a lost worker is replaced even late.
        """
        self.ends: dict[int, Finished] = {}
        self._call = later
        self._first = first
        self._generation = first
        self._earlier: list[Generation] = []
        self._toolset = toolset
        self._start = start
        self._run = run
        self._limits = limits
        self._whole = whole
        self._clock = Clock(limits.seconds, limits.latest)
        before = [event for event in told if isinstance(event, HostedCallEnded)]
        self._numbers = itertools.count(len(before))
        self._called = len(before)
        self._statistics: Statistics | None = None  # of the steps that have ended
        self._step = self._new_step()
        self._before: list[object] = []  # what the step before called, and what came of it
        self._running: RunningCalls | None = None
        self._ended: list[HostedCallEnded] = []  # of this step
        self._ready = list(told)

    @property
    def plan(self) -> Plan:
        return self._generation.plan

    @property
    def instance(self) -> Instance:
        return self._generation.instance

    @property
    def settings(self) -> Effective | None:
        return self._generation.settings

    @property
    def accept_seconds(self) -> float:
        """Until a worker had accepted the first step."""
        return self._first.accept_seconds

    @property
    def load_seconds(self) -> float | None:
        return self._first.load_seconds

    @property
    def unenforced(self) -> tuple[str, ...]:
        return self._first.unenforced

    @property
    def dropped(self) -> Dropped:
        return self._generation.dropped

    @property
    def prompt_tokens(self) -> int:
        return sum(each.prompt_tokens for each in self._generations)

    @property
    def cached_tokens(self) -> int:
        return sum(each.cached_tokens for each in self._generations)

    @property
    def generated_tokens(self) -> int:
        return sum(each.generated_tokens for each in self._generations)

    @property
    def completion_tokens(self) -> int:
        return sum(each.completion_tokens for each in self._generations)

    @property
    def reasoning_tokens(self) -> int:
        return sum(each.reasoning_tokens for each in self._generations)

    def must_load(self) -> bool:
        return self._first.must_load()

    async def find(self) -> None:
        await self._first.find()

    async def begin(self) -> None:
        await self._first.begin()

    async def next_batch(self) -> list[Event]:
        """Everything since the last batch; an empty one when the answer has ended."""
        while not self.ends or self._ready:
            if batch := await self._advance():
                return batch
        return []

    async def events(self) -> list[Event]:
        """All of the answer."""
        found: list[Event] = []
        while batch := await self.next_batch():
            found += batch
        return found

    def fail(self, error: AtelierError) -> None:
        self._generation.fail(error)

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
        self._generation.close()

    @property
    def _generations(self) -> list[Generation]:
        return [*self._earlier, self._generation]

    def _new_step(self) -> Step:
        return Step(self._toolset, lambda: next(self._numbers))

    async def _advance(self) -> list[Event]:
        """What comes next; nothing where only the state has changed."""
        if self._ready:
            batch, self._ready = self._ready, []
            return batch
        if self._running is not None:
            return await self._await_calls(self._running)
        batch = [told for event in await self._step_events() for told in self._step.take(event)]
        return batch if self._step.finished is None else [*batch, *self._end_step()]

    async def _step_events(self) -> list[Event]:
        if not self._whole:
            return await self._generation.next_batch()
        (completion,) = await self._generation.collect()
        return [*completion_events(completion), completion.finished]

    def _end_step(self) -> list[Event]:
        """What the step's calls come to at first: those that run, run from here on."""
        assert self._step.finished is not None
        told = list(self._step.endings())
        runs = {event.number for event in told if isinstance(event, HostedCallRuns)}
        if not runs:
            return [*told, self._end()]
        calls = [call for call in self._step.calls() if call.number in runs]
        room = max(0, self._limits.calls - self._called)
        self._called += len(calls)
        self._ended = [call.ended(None, NO_MORE) for call in calls[room:]]
        self._running = self._run(calls[:room], self._clock)
        return [*told, *self._ended]

    async def _await_calls(self, running: RunningCalls) -> list[Event]:
        if events := await running.next_events():
            self._ended += [event for event in events if isinstance(event, HostedCallEnded)]
            return list(events)
        self._running = None
        if self._step.has_client_calls or len(self._ended) < len(self._step.calls()):  # others have to act
            self._ready = [self._end()]
        else:
            await self._go_on()
        return []

    async def _go_on(self) -> None:
        """The next step, with what the calls came to."""
        self._ended.sort(key=lambda ended: ended.number)
        came: list[object] = [(each.tool.shown, each.arguments, each.output, each.error) for each in self._ended]
        repeats, self._before = came == self._before, came
        self._note_statistics()
        self._call = self._following(self._step.completion, self._ended, repeats=repeats)
        ended = self._generation
        ended.close()
        self._generation = await self._start(self._call)
        self._earlier.append(ended)
        self._step, self._ended = self._new_step(), []

    def _following(self, completion: Completion, ended: Sequence[HostedCallEnded], *, repeats: bool) -> Call:
        """The call of the next step, which may call nothing where the last one has learnt nothing new.

        `repeats`: the step has called what the one before did, and got the same. Small models go on with that
        for ever.
        """
        messages = step_messages(completion, ended, sees=self.plan.model.made_for_vision)
        call = with_messages(self._call, messages)
        return replace(call, tools=self._clients_tools()) if repeats or self._is_exhausted() else call

    def _clients_tools(self) -> Tools | None:
        """Those that end the answer, whose number and time nothing here has to bound."""
        tools = self._call.tools
        left = [tool for tool in tools.tools if tool.name not in self._toolset.tools] if tools else []
        return replace(tools, tools=left) if tools and left else None

    def _is_exhausted(self) -> bool:
        """Whether the next step may call no server."""
        last = len(self._earlier) + 2 >= self._limits.steps
        return last or self._called >= self._limits.calls or self._clock.is_up

    def _note_statistics(self) -> Statistics:
        assert self._step.finished is not None
        figures = self._step.finished.statistics
        self._statistics = figures if self._statistics is None else self._statistics.then(figures)
        return self._statistics

    def _end(self) -> Finished:
        assert self._step.finished is not None
        finished = replace(self._step.finished, statistics=self._note_statistics())
        if finished.reason is StopReason.TOOL_CALLS and not self._step.has_client_calls:
            finished = replace(finished, reason=StopReason.EOS_FOUND)  # the client has nothing to run
        self.ends[0] = finished
        return finished


def with_messages(call: Call, messages: Sequence[Mapping[str, Any]]) -> Call:
    """The same chat, gone on with these messages."""
    (prompt,) = call.prompts
    assert isinstance(prompt, Chat)
    more = Chat.of([dict(message) for message in messages])
    return replace(call, prompts=[Chat([*prompt.messages, *more.messages], [*prompt.images, *more.images])])
