"""One generation of the loop: what its events are to the client, and what of them is to be run. Owned by the loop."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from gateway.core.completion_draft import Draft
from gateway.core.events import (
    ApprovalWanted,
    Completion,
    Event,
    Finished,
    HostedCallArguments,
    HostedCallBegun,
    HostedCallRuns,
    StopReason,
    ToolCall,
    ToolCallDelta,
)
from gateway.tools.loop.hosted_call import HostedCall
from gateway.tools.loop.toolset import Toolset

CUT_OFF = "The answer ended before the call was complete."


class Step:
    """Takes the events of one generation up to its end.

    Calls of the client's own functions pass through. A call that needs approval is told when it is
    complete, and the others as they are written.
    """

    def __init__(self, toolset: Toolset, number: Callable[[], int]) -> None:
        """`number`: of the answer's next call of a server's tool."""
        self._toolset = toolset
        self._number = number
        self._draft = Draft()
        self._numbers: dict[int, int] = {}  # of the servers' calls, by their place among the step's calls
        self._clients: dict[int, int] = {}  # places of the client's own
        self.finished: Finished | None = None

    def take(self, event: Event) -> Iterator[Event]:
        """What the client gets for it; nothing of the end, which may not be the answer's."""
        if isinstance(event, Finished):
            self.finished = event
            return
        self._draft.add(event)
        if isinstance(event, ToolCallDelta):
            yield from self._call_piece(event)
        else:
            yield event

    @property
    def completion(self) -> Completion:
        """Of the whole step."""
        assert self.finished is not None, "not at its end yet"
        return self._draft.completion(self.finished, logprobs=False)

    @property
    def has_client_calls(self) -> bool:
        return bool(self._clients)

    def calls(self) -> list[HostedCall]:
        """Of servers' tools, in their order."""
        found = zip(self._draft.calls, self.completion.tool_calls, strict=True)
        return [self._hosted(self._numbers[place], call) for place, call in found if place in self._numbers]

    def endings(self) -> Sequence[Event]:
        """What the client gets for the step's calls once it has ended: that they run, wait for approval or are lost."""
        assert self.finished is not None
        if self.finished.reason is StopReason.TOOL_CALLS:
            return [_ending(call) for call in self.calls()]
        return [call.ended(None, CUT_OFF) for call in self.calls() if not call.tool.needs_approval]

    def _call_piece(self, event: ToolCallDelta) -> Iterator[Event]:
        piece = event.piece
        first = piece.index not in self._numbers and piece.index not in self._clients
        if first and piece.name in self._toolset.tools:
            self._numbers[piece.index] = self._number()
        elif first:
            self._clients[piece.index] = len(self._clients)
        if piece.index in self._clients:
            yield ToolCallDelta(event.choice, replace(piece, index=self._clients[piece.index]))
            return
        number = self._numbers[piece.index]
        id, name, *_ = self._draft.calls[piece.index]
        tool = self._toolset.tools[name]
        if tool.needs_approval:
            return
        if first:
            yield HostedCallBegun(event.choice, number, id, tool)
        if piece.arguments:
            yield HostedCallArguments(event.choice, number, piece.arguments)

    def _hosted(self, number: int, call: ToolCall) -> HostedCall:
        return HostedCall(number, call.id, self._toolset.tools[call.name], call.arguments)


def _ending(call: HostedCall) -> ApprovalWanted | HostedCallRuns:
    if call.tool.needs_approval:
        return ApprovalWanted(0, call.number, call.id, call.tool, call.arguments)
    return HostedCallRuns(0, call.number, call.arguments)
