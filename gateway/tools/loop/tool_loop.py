"""An answer that goes on after each call of a server's tool."""

import itertools
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from atelier.errors import AtelierError
from atelier.submission import Tools
from gateway.core.call import Call, Chat, Plan
from gateway.core.effective_settings import Effective
from gateway.core.events import (
    Completion,
    Dropped,
    Event,
    Finished,
    HostedCallEnded,
    HostedCallRuns,
    Statistics,
    StopReason,
)
from gateway.core.generation import Generation
from gateway.fleet.snapshot import Instance
from gateway.tools.loop.hosted_call import HostedCall
from gateway.tools.loop.image_budget import ImageRoom
from gateway.tools.loop.loop_step import Step
from gateway.tools.loop.running_calls import RunningCalls
from gateway.tools.loop.step_messages import step_messages
from gateway.tools.loop.toolset import Toolset
from gateway.tools.mcp_client.pausable_deadline import Clock

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


@dataclass(frozen=True, slots=True)
class _Counts:
    """All that is kept of an earlier step: its generation has every image of its prompt."""

    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    completion_tokens: int
    reasoning_tokens: int

    @classmethod
    def of(cls, generation: Generation) -> "_Counts":
        return cls(*(getattr(generation, name) for name in cls.__slots__))


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
        clock: Clock,
        room: ImageRoom,
        on_close: Callable[["ToolLoop"], None],
        *,
        told: Sequence[Event] = (),
        whole: bool = False,
    ) -> None:
        """`later`: what the steps after the first go on from. `told`: what the client gets before anything else.

        `clock`: when it is up, tools are no longer called. `whole`: nothing is sent before the answer's end, so that a
        lost worker is replaced even late.
        """
        self.ends: dict[int, Finished] = {}
        self._call = later
        self._first = first
        self._generation = first
        self._earlier: list[_Counts] = []
        self._toolset = toolset
        self._start = start
        self._run = run
        self._limits = limits
        self._whole = whole
        self._clock = clock
        self._room = room
        self._on_close = on_close
        self._failure: AtelierError | None = None
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
        return sum(each.prompt_tokens for each in self._counts)

    @property
    def cached_tokens(self) -> int:
        return sum(each.cached_tokens for each in self._counts)

    @property
    def generated_tokens(self) -> int:
        return sum(each.generated_tokens for each in self._counts)

    @property
    def completion_tokens(self) -> int:
        return sum(each.completion_tokens for each in self._counts)

    @property
    def reasoning_tokens(self) -> int:
        return sum(each.reasoning_tokens for each in self._counts)

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
        """End it with an error, wherever it is: also while its calls run, and between two steps."""
        self._failure = error
        self._generation.fail(error)
        if self._running is not None:
            self._running.fail(error)

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
        self._generation.close()
        self._on_close(self)

    @property
    def _counts(self) -> list["_Counts"]:
        return [*self._earlier, _Counts.of(self._generation)]

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
        return await (self._generation.events() if self._whole else self._generation.next_batch())

    def _end_step(self) -> list[Event]:
        """What the step's calls come to at first: those that run, run from here on."""
        assert self._step.finished is not None
        told = list(self._step.endings())
        runs = {event.number for event in told if isinstance(event, HostedCallRuns)}
        if not runs:
            return [*told, self._end()]
        self._raise_failure()
        calls = [call for call in self._step.calls() if call.number in runs]
        run = self._within_limits(calls)
        self._called += len(calls)
        self._ended = [call.ended(None, NO_MORE) for call in calls if call not in run]
        self._running = self._run(run, self._clock)
        return [*told, *self._ended]

    def _raise_failure(self) -> None:
        """What is written was sent all the same."""
        if self._failure is not None:
            raise self._failure

    def _within_limits(self, calls: Sequence[HostedCall]) -> Sequence[HostedCall]:
        """Those that may run. Models call what they were not offered, too: what they have called before, say."""
        offered = self._offered()
        return [call for call in calls if call.tool.shown in offered][: max(0, self._limits.calls - self._called)]

    def _offered(self) -> set[str]:
        """The servers' tools that this step may call."""
        tools = self.plan.call.tools
        return {tool.name for tool in tools.tools if tool.name in self._toolset.tools} if tools else set()

    async def _await_calls(self, running: RunningCalls) -> list[Event]:
        if heard := await running.next_events():
            events = [self._room.fitted(event) if isinstance(event, HostedCallEnded) else event for event in heard]
            self._ended += [event for event in events if isinstance(event, HostedCallEnded)]
            return [*events]
        self._running = None
        others_act = self._step.has_client_calls or len(self._ended) < len(self._step.calls())
        if others_act or not self._offered():  # a step that was to call nothing is the last, whatever it has called
            self._ready = [self._end()]
        else:
            await self._go_on()
        return []

    async def _go_on(self) -> None:
        """The next step, with what the calls came to."""
        self._raise_failure()
        self._ended.sort(key=lambda ended: ended.number)
        came: list[object] = [(each.tool.shown, each.arguments, each.output, each.error) for each in self._ended]
        repeats, self._before = came == self._before, came
        self._note_statistics()
        self._call = self._following(self._step.completion, self._ended, repeats=repeats)
        ended = self._generation
        ended.close()
        self._generation = await self._start(self._call)
        self._earlier.append(_Counts.of(ended))
        self._step, self._ended = self._new_step(), []

    def _following(self, completion: Completion, ended: Sequence[HostedCallEnded], *, repeats: bool) -> Call:
        """The call of the next step, which may call nothing where the last one has learnt nothing new.

        `repeats`: the step has called what the one before did, and got the same. Small models go on with that
        for ever.
        """
        sees = self.plan.model.made_for_vision
        messages = step_messages(completion.text, completion.reasoning, ended, sees=sees)
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
