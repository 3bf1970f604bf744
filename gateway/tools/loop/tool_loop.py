"""An answer that continues after each call of a server's tool."""

import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from atelier.errors import AtelierError
from atelier.generation_types import Dropped, Finished, Statistics, StopReason
from gateway.core.call import Call
from gateway.core.call_plan import CallPlan, Effective
from gateway.core.events import Event, HostedCallEnded, HostedCallRuns
from gateway.core.generation import Generation
from gateway.fleet.snapshot import Instance
from gateway.tools.loop.loop_policy import LoopBudget, with_messages, without_server_tools
from gateway.tools.loop.loop_step import LoopStep
from gateway.tools.loop.running_calls import RunningCalls
from gateway.tools.loop.step_messages import ImageBudget, step_messages
from gateway.tools.loop.toolset import HostedCall, Toolset
from gateway.tools.mcp_client.pausable_deadline import PausableDeadline

NO_MORE = "This answer may not call more tools."

Start = Callable[[Call], Awaitable[Generation]]
"""Returns a generation that a worker has accepted."""

Run = Callable[[Sequence[HostedCall], PausableDeadline], RunningCalls]
"""Sends calls to their servers; they are cancelled at the deadline."""


@dataclass(frozen=True, slots=True)
class _TokenCounts:
    """All that is kept of finished steps: a generation holds every image of its prompt."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    def plus(self, generation: Generation) -> "_TokenCounts":
        return _TokenCounts(*(getattr(self, name) + getattr(generation, name) for name in self.__slots__))


class ToolLoop:
    """Owned by the request's task, which closes it; used like a generation of one choice.

    admitted --begin--> generating --its calls are complete--> running --all have ended--> generating ...
                            '--no calls, or calls that the client must act on--> ended
    """

    def __init__(
        self,
        first: Generation,
        later: Call,
        toolset: Toolset,
        start: Start,
        run: Run,
        budget: LoopBudget,
        images: ImageBudget,
        on_close: Callable[["ToolLoop"], None],
        *,
        replay: Sequence[Event] = (),
        whole: bool = False,
    ) -> None:
        """`later`: the call that the steps after the first extend. `replay`: events that the client gets first.

        `whole`: the client gets nothing before the answer's end, so that a lost worker can be replaced at any time.
        """
        self.ends: dict[int, Finished] = {}
        self._call = later
        self._first = first
        self._generation = first
        self._counts = _TokenCounts()  # of the finished steps
        self._toolset = toolset
        self._start = start
        self._run = run
        self._budget = budget
        self._whole = whole
        self._images = images
        self._on_close = on_close
        self._failure: AtelierError | None = None
        self._numbers = itertools.count(sum(isinstance(event, HostedCallEnded) for event in replay))
        self._statistics: Statistics | None = None  # of the finished steps
        self._step = self._new_step()
        self._running: RunningCalls | None = None
        self._ended: list[HostedCallEnded] = []  # of this step
        self._ready = list(replay)

    @property
    def plan(self) -> CallPlan:
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
        return self._counts.prompt_tokens + self._generation.prompt_tokens

    @property
    def cached_tokens(self) -> int:
        return self._counts.cached_tokens + self._generation.cached_tokens

    @property
    def generated_tokens(self) -> int:
        return self._counts.generated_tokens + self._generation.generated_tokens

    @property
    def completion_tokens(self) -> int:
        return self._counts.completion_tokens + self._generation.completion_tokens

    @property
    def reasoning_tokens(self) -> int:
        return self._counts.reasoning_tokens + self._generation.reasoning_tokens

    def must_load(self) -> bool:
        return self._first.must_load()

    async def find(self) -> None:
        await self._first.find()

    async def begin(self) -> None:
        await self._first.begin()

    async def next_batch(self) -> list[Event]:
        """Everything since the last batch; empty when the answer has ended."""
        while not self.ends or self._ready:
            if batch := await self._advance():
                return batch
        return []

    async def events(self) -> list[Event]:
        """All of the answer."""
        events: list[Event] = []
        while batch := await self.next_batch():
            events += batch
        return events

    def fail(self, error: AtelierError) -> None:
        """Ends it with an error in any state, also while calls run and between two steps."""
        self._failure = error
        self._generation.fail(error)
        if self._running is not None:
            self._running.fail(error)

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
        self._generation.close()
        self._on_close(self)

    def _new_step(self) -> LoopStep:
        return LoopStep(self._toolset, lambda: next(self._numbers))

    async def _advance(self) -> list[Event]:
        """The next events; empty if only the state has changed."""
        if self._ready:
            batch, self._ready = self._ready, []
            return batch
        if self._running is not None:
            return await self._await_calls(self._running)
        new = await (self._generation.events() if self._whole else self._generation.next_batch())
        batch = [shown for event in new for shown in self._step.take(event)]
        return batch if self._step.finished is None else [*batch, *self._end_generation()]

    def _end_generation(self) -> list[Event]:
        """Starts the step's calls, or ends the answer if there are none to run."""
        endings = list(self._step.endings())
        to_run = {event.number for event in endings if isinstance(event, HostedCallRuns)}
        if not to_run:
            return [*endings, self._end()]
        self._raise_failure()
        calls = [call for call in self._step.calls() if call.number in to_run]
        admitted = self._budget.admit(calls, self._offered())
        self._ended = [call.ended(None, NO_MORE) for call in calls if call not in admitted]
        self._running = self._run(admitted, self._budget.deadline)
        return [*endings, *self._ended]

    def _raise_failure(self) -> None:
        """Raised between two steps: a finished generation does not raise it."""
        if self._failure is not None:
            raise self._failure

    def _offered(self) -> set[str]:
        """The servers' tools that this step may call."""
        tools = self.plan.call.tools
        return {tool.name for tool in tools.tools if tool.name in self._toolset.tools} if tools else set()

    async def _await_calls(self, running: RunningCalls) -> list[Event]:
        if new := await running.next_events():
            events = [self._images.fitted(event) if isinstance(event, HostedCallEnded) else event for event in new]
            self._ended += [event for event in events if isinstance(event, HostedCallEnded)]
            return [*events]
        self._running = None
        client_acts = self._step.has_client_calls or len(self._ended) < len(self._step.calls())
        if client_acts or not self._offered():  # a step that was offered no tools is the last, even if it called some
            self._ready = [self._end()]
        else:
            await self._start_next_step()
        return []

    async def _start_next_step(self) -> None:
        """Generates further, from the results of the calls."""
        self._raise_failure()
        self._ended.sort(key=lambda ended: ended.number)
        may_call = self._budget.begin_step(self._ended)
        self._note_statistics()
        completion, vision = self._step.completion, self.plan.model.made_for_vision
        messages = step_messages(completion.text, completion.reasoning, self._ended, vision=vision)
        self._call = with_messages(self._call, messages)
        if not may_call:
            self._call = without_server_tools(self._call, self._toolset)
        ended = self._generation
        ended.close()
        self._generation = await self._start(self._call)
        self._counts = self._counts.plus(ended)
        self._step, self._ended = self._new_step(), []

    def _note_statistics(self) -> Statistics:
        assert self._step.finished is not None
        statistics = self._step.finished.statistics
        self._statistics = statistics if self._statistics is None else self._statistics.then(statistics)
        return self._statistics

    def _end(self) -> Finished:
        assert self._step.finished is not None
        finished = replace(self._step.finished, statistics=self._note_statistics())
        if finished.reason is StopReason.TOOL_CALLS and not self._step.has_client_calls:
            finished = replace(finished, reason=StopReason.EOS_FOUND)  # there is nothing for the client to run
        self.ends[0] = finished
        return finished
