"""What comes of an answer, as a response's output items and as the events that tell of them. Pure.

Of what the model writes one item is open at a time: what is of another kind closes it. Calls of servers' tools stay
open beside it, as many as run.
"""

from collections.abc import Collection, Sequence

from atelier.json_types import Json
from atelier.submission import ToolCallPiece
from gateway.core.events import (
    ApprovalWanted,
    Delta,
    Event,
    HostedCallArguments,
    HostedCallBegun,
    HostedCallEnded,
    HostedCallRuns,
    Reasoning,
    TokenLogprob,
    ToolCallDelta,
)
from gateway.dialects.responses.growing_items import (
    ApprovalDraft,
    CallDraft,
    ItemDraft,
    ListDraft,
    MessageDraft,
    ReasoningDraft,
    ServerCallDraft,
)
from gateway.dialects.responses.response_turn import Turn
from gateway.tools.loop.toolset import ServerListing

Written = MessageDraft | ReasoningDraft | CallDraft


class Output:
    """The items so far; of those that are written the last may be open."""

    def __init__(
        self, response_id: str, listings: Sequence[ServerListing] = (), approved: Collection[str] = ()
    ) -> None:
        """`listings`: of the servers to tell of. `approved`: ids of the calls that a client has agreed to, which are
        those of the items that asked for it.
        """
        self._response_id = response_id
        self._listings = [ListDraft(response_id, index, listing) for index, listing in enumerate(listings)]
        self._approved = approved
        self._drafts: list[ItemDraft] = [*self._listings]
        self._open: Written | None = None
        self._calls: dict[int, ServerCallDraft] = {}  # by their numbers

    @property
    def items(self) -> list[Json]:
        return [draft.item for draft in self._drafts]

    def begin(self) -> list[Json]:
        """What the client gets before anything is written."""
        return [event for draft in self._listings for event in draft.all()]

    def take(self, event: Event) -> list[Json]:
        """What the client gets for it."""
        match event:
            case Delta(_, text, logprobs):
                return self._add_text(text, logprobs)
            case Reasoning(_, text):
                return self._add_reasoning(text)
            case ToolCallDelta(_, piece):
                return self._add_call(piece)
            case HostedCallBegun():
                return self._begin_server_call(event)
            case HostedCallArguments(_, number, text):
                return self._calls[number].add(text)
            case HostedCallRuns(_, number, arguments):
                return self._calls[number].run(arguments)
            case HostedCallEnded(_, number):
                return self._calls[number].end(event)
            case ApprovalWanted():
                draft = ApprovalDraft(self._response_id, len(self._drafts), event)
                return [*self._close_written(draft), *draft.all()]
        return []

    def end(self, status: str) -> list[Json]:
        """An answer without a word is an empty message."""
        if len(self._drafts) > len(self._listings):
            return self._close(status)
        return self._begin(MessageDraft(self._response_id, len(self._drafts))) + self._close(status)

    def _add_text(self, text: str, logprobs: Sequence[TokenLogprob]) -> list[Json]:
        if isinstance(self._open, MessageDraft):
            return self._open.add(text, logprobs)
        draft = MessageDraft(self._response_id, len(self._drafts))
        return self._begin(draft) + draft.add(text, logprobs)

    def _add_reasoning(self, text: str) -> list[Json]:
        if isinstance(self._open, ReasoningDraft):
            return self._open.add(text)
        draft = ReasoningDraft(self._response_id, len(self._drafts))
        return self._begin(draft) + draft.add(text)

    def _add_call(self, piece: ToolCallPiece) -> list[Json]:
        if isinstance(self._open, CallDraft) and self._open.number == piece.index:
            return self._open.add(piece.arguments)
        draft = CallDraft(self._response_id, len(self._drafts), piece)
        return self._begin(draft) + draft.add(piece.arguments)

    def _begin_server_call(self, begun: HostedCallBegun) -> list[Json]:
        asked = begun.id if begun.id in self._approved else None
        draft = self._calls[begun.number] = ServerCallDraft(self._response_id, len(self._drafts), begun, asked)
        return [*self._close_written(draft), *draft.begin()]

    def _begin(self, draft: Written) -> list[Json]:
        closed = self._close_written(draft)
        self._open = draft
        return closed + draft.begin()

    def _close_written(self, next_draft: ItemDraft) -> list[Json]:
        self._drafts.append(next_draft)
        return self._close("completed")

    def _close(self, status: str) -> list[Json]:
        draft, self._open = self._open, None
        return draft.end(status) if draft is not None else []


def output_of(turn: Turn) -> Output:
    """Of an answer that has yet to come."""
    return Output(turn.id, turn.listings, {call.id for call in turn.approved})
