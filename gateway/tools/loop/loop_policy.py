"""How far an answer may continue to call tools, and the call of its next step."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from atelier.prompt_end import PromptEnd
from atelier.submission import Constraint, Tools
from gateway.core.call import Call, Chat, joined
from gateway.core.events import HostedCallEnded
from gateway.core.hosted_tool import ToolOutput
from gateway.tools.loop.toolset import HostedCall, Toolset
from gateway.tools.mcp_client.pausable_deadline import PausableDeadline

Outcome = tuple[str, str, ToolOutput | None, str]
"""A call's tool, arguments, output and error."""


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """Of one answer."""

    steps: int = 16  # generations; the last may not call servers' tools
    calls: int = 64
    seconds: float = 300.0  # for calling tools, excluding the time that users take to answer questions
    latest: float = math.inf  # seconds for calling tools, including that time


class LoopBudget:
    """What one answer has used of its limits. Owned by its loop."""

    def __init__(self, limits: LoopLimits, deadline: PausableDeadline, calls: int) -> None:
        """`calls`: made before the first step."""
        self.deadline = deadline
        self._limits = limits
        self._steps = 1
        self._calls = calls
        self._outcomes: list[Outcome] = []  # of the previous step

    def admit(self, calls: Sequence[HostedCall], offered: Collection[str]) -> list[HostedCall]:
        """Those of a step's calls that may run: models also call tools that they were not offered in this step."""
        admitted = [call for call in calls if call.tool.shown in offered][: max(0, self._limits.calls - self._calls)]
        self._calls += len(calls)
        return admitted

    def begin_step(self, ended: Sequence[HostedCallEnded]) -> bool:
        """Whether the next step may call servers' tools, after the previous one's calls.

        Not if those repeat the calls and results of the step before: small models would continue so for ever.
        """
        outcomes: list[Outcome] = [(each.tool.shown, each.arguments, each.output, each.error) for each in ended]
        is_repetition, self._outcomes = outcomes == self._outcomes, outcomes
        self._steps += 1
        is_last = self._steps >= self._limits.steps
        return not (is_repetition or is_last or self._calls >= self._limits.calls or self.deadline.has_passed)


def with_messages(call: Call, messages: Sequence[Mapping[str, object]]) -> Call:
    """The same chat, followed by these messages, the first of which may continue its last one."""
    (prompt,) = call.prompts
    assert isinstance(prompt, Chat)
    more, before = Chat.of([dict(message) for message in messages]), prompt.messages
    later = more.messages
    if call.prompt_end is PromptEnd.CONTINUED_MESSAGE:
        before, later = before[:-1], [joined(before[-1], later[0]), *later[1:]]
    chat = Chat([*before, *later], [*prompt.images, *more.images])
    return replace(call, prompts=[chat], prompt_end=PromptEnd.NEW_MESSAGE)


def unforced(call: Call, constraint: Constraint | None) -> Call:
    """Without a forced tool call: the steps after the first would otherwise never end. Then `constraint` applies."""
    tools = call.tools and Tools(call.tools.tools, one_at_a_time=call.tools.one_at_a_time)
    return replace(call, tools=tools, constraint=call.constraint or constraint)


def without_server_tools(call: Call, toolset: Toolset) -> Call:
    """With the client's own functions alone: calls of those end the answer, so they need no limit."""
    tools = call.tools
    own = [tool for tool in tools.tools if tool.name not in toolset.tools] if tools else []
    return replace(call, tools=replace(tools, tools=own) if tools and own else None)
