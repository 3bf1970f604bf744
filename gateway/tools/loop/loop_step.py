"""One step of the loop, a generation: which of its events go to the client, and which of its calls run here."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from atelier.generation_types import Finished, StopReason
from gateway.core.events import (
    ApprovalWanted,
    Completion,
    CompletionDraft,
    Event,
    HostedCallArguments,
    HostedCallBegun,
    HostedCallRuns,
    ToolCall,
    ToolCallDelta,
)
from gateway.tools.loop.toolset import HostedCall, Toolset

CUT_OFF = "The answer ended before the call was complete."


class LoopStep:
    """Takes the events of one generation up to its end. Owned by the loop.

    Calls of the client's own functions pass through. A call that needs approval is reported once it is complete, other
    calls of servers' tools as they are generated.
    """

    def __init__(self, toolset: Toolset, next_number: Callable[[], int]) -> None:
        """`next_number`: numbers the answer's calls of servers' tools."""
        self._toolset = toolset
        self._next_number = next_number
        self._draft = CompletionDraft()
        self._numbers: dict[int, int] = {}  # of calls of servers' tools, by index among the step's calls
        self._client_indices: dict[int, int] = {}  # of the client's own calls, by index among the step's calls
        self.finished: Finished | None = None

    def take(self, event: Event) -> Iterator[Event]:
        """The events for the client. None at the generation's end, which may not be the answer's."""
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
        """Of the whole step, once finished."""
        assert self.finished is not None
        return self._draft.completion(self.finished, logprobs=False)

    @property
    def has_client_calls(self) -> bool:
        return bool(self._client_indices)

    def calls(self) -> list[HostedCall]:
        """Of servers' tools, in their order."""
        calls = zip(self._draft.calls, self.completion.tool_calls, strict=True)
        return [self._hosted(self._numbers[index], call) for index, call in calls if index in self._numbers]

    def endings(self) -> Sequence[Event]:
        """The finished step's calls: each runs, waits for approval, or was cut off."""
        assert self.finished is not None
        if self.finished.reason is StopReason.TOOL_CALLS:
            return [_ending(call) for call in self.calls()]
        return [call.ended(None, CUT_OFF) for call in self.calls() if not call.tool.needs_approval]

    def _call_piece(self, event: ToolCallDelta) -> Iterator[Event]:
        piece = event.piece
        is_first = piece.index not in self._numbers and piece.index not in self._client_indices
        if is_first and piece.name in self._toolset.tools:
            self._numbers[piece.index] = self._next_number()
        elif is_first:
            self._client_indices[piece.index] = len(self._client_indices)
        if piece.index in self._client_indices:
            yield ToolCallDelta(event.choice, replace(piece, index=self._client_indices[piece.index]))
            return
        number = self._numbers[piece.index]
        id, name, *_ = self._draft.calls[piece.index]
        tool = self._toolset.tools[name]
        if tool.needs_approval:
            return
        if is_first:
            yield HostedCallBegun(event.choice, number, id, tool)
        if piece.arguments:
            yield HostedCallArguments(event.choice, number, piece.arguments)

    def _hosted(self, number: int, call: ToolCall) -> HostedCall:
        return HostedCall(number, call.id, self._toolset.tools[call.name], call.arguments)


def _ending(call: HostedCall) -> ApprovalWanted | HostedCallRuns:
    if call.tool.needs_approval:
        return ApprovalWanted(0, call.number, call.id, call.tool, call.arguments)
    return HostedCallRuns(0, call.number, call.arguments)
