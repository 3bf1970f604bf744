"""A response as a stream of OpenAI's events: numbered, and each named in its frame."""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Literal

import orjson
from pydantic import Field
from starlette.types import Scope, Send
from typing_extensions import TypeAliasType

from atelier.errors import AtelierError
from atelier.generation_types import ToolCallPiece
from atelier.json_types import Json
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
from gateway.core.inference import RunningAnswer
from gateway.dialects.reply import EventStream
from gateway.dialects.responses.growing_items import (
    ApprovalDraft,
    ArgumentsDelta,
    ArgumentsDone,
    CallDraft,
    ItemDraft,
    ItemEvent,
    ListDraft,
    MCPArgumentsDelta,
    MCPArgumentsDone,
    MCPState,
    MessageDraft,
    Numbered,
    OutputTextDelta,
    OutputTextDone,
    PartEvent,
    ReasoningDraft,
    ReasoningTextDelta,
    ReasoningTextDone,
    ServerCallDraft,
)
from gateway.dialects.responses.response_archive import Archive
from gateway.dialects.responses.response_object import (
    ResponseObject,
    ending,
    failed_response,
    finished_response,
    unfinished_response,
)
from gateway.dialects.responses.response_turn import Turn
from gateway.http.streaming import named_frame
from gateway.tools.loop.toolset import ServerListing

UNFINISHED_ITEMS = ("in_progress", "calling")
LAST_EVENTS = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
}
Written = MessageDraft | ReasoningDraft | CallDraft


class ResponseState(Numbered):
    type: Literal[
        "response.created", "response.in_progress", "response.completed", "response.incomplete", "response.failed"
    ]
    response: ResponseObject


ResponseEvent = TypeAliasType(
    "ResponseEvent",
    Annotated[
        ResponseState
        | ItemEvent
        | PartEvent
        | OutputTextDelta
        | OutputTextDone
        | ReasoningTextDelta
        | ReasoningTextDone
        | ArgumentsDelta
        | ArgumentsDone
        | MCPArgumentsDelta
        | MCPArgumentsDone
        | MCPState,
        Field(title="ResponseEvent", description="The data of one event, whose name is its type."),
    ],
)


class Output:
    """The output's items so far, and the events that report them.

    Of the items that the model writes one is open at a time; an item of another kind closes it. Calls of servers' tools
    stay open beside it while they run.
    """

    def __init__(
        self, response_id: str, listings: Sequence[ServerListing] = (), approved: Collection[str] = ()
    ) -> None:
        """`listings`: of the servers whose tools are listed. `approved`: ids of the approved calls' requests."""
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
        """The events before any output."""
        return [event for draft in self._listings for event in draft.all()]

    def take(self, event: Event) -> list[Json]:
        """The events that report it."""
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
        """Output without items becomes an empty message."""
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
    """The output of an answer that has not begun."""
    return Output(turn.id, turn.listings, {call.id for call in turn.approved})


def collected_response(turn: Turn, generation: RunningAnswer, events: Iterable[Event]) -> ResponseObject:
    """The response of a generation that has ended. `events`: all of its events."""
    output = output_of(turn)
    output.begin()
    for event in events:
        output.take(event)
    output.end(ending(generation.ends[0])[0])
    return finished_response(turn, generation, output.items)


class ResponseRenderer:
    """One response's events. `last` is sent once the response is stored."""

    def __init__(self, turn: Turn, generation: RunningAnswer) -> None:
        self._turn = turn
        self._generation = generation
        self._numbers = itertools.count()
        self._output = output_of(turn)

    def opening(self) -> bytes:
        begun = unfinished_response(self._turn, self._generation.plan.name, "in_progress", self._generation.settings)
        states = [{"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")]
        return self._frames([*states, *self._output.begin()])

    def event(self, event: Event) -> bytes:
        return self._frames(self._output.take(event))

    def closing(self, generation: RunningAnswer) -> bytes:
        status, _ = ending(generation.ends[0])
        return self._frames(self._output.end(status))

    def finished(self) -> ResponseObject:
        return finished_response(self._turn, self._generation, self._output.items)

    def failed(self, error: AtelierError) -> ResponseObject:
        """With the items that were complete."""
        complete = [item for item in self._output.items if item.get("status") not in UNFINISHED_ITEMS]
        return failed_response(self._turn, self._generation.plan.name, error, complete)

    def last(self, response: ResponseObject) -> bytes:
        return self._frames([{"type": LAST_EVENTS[response["status"]], "response": response}])

    def _frames(self, events: Iterable[Json]) -> bytes:
        return b"".join(_frame({**event, "sequence_number": next(self._numbers)}) for event in events)


def _frame(event: Json) -> bytes:
    return named_frame(event["type"], orjson.dumps(event))


class ResponseStream(EventStream):
    """The last event is sent once the response is stored, or could not be, which its `store` reports."""

    def __init__(self, turn: Turn, generation: RunningAnswer, archive: Archive, headers: Mapping[str, str]) -> None:
        self._events = ResponseRenderer(turn, generation)
        super().__init__(generation, self._events, headers)
        self._turn = turn
        self._archive = archive
        self._error: AtelierError | None = None

    async def _stream(self, scope: Scope, send: Send) -> bytes:
        closing = await super()._stream(scope, send)
        response = self._events.finished() if self._error is None else self._events.failed(self._error)
        return closing + self._events.last(await self._archive.keep(self._turn, response))

    def _failed(self, scope: Scope, error: AtelierError) -> bytes:
        """The error is reported in the last event of the dialect's own."""
        scope["atelier.account"].error = error.code
        self._error = error
        return b""
