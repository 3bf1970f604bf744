"""A response as it comes: OpenAI's events, numbered, each named in the frame as well."""

import itertools
from collections.abc import Iterable, Mapping

import orjson
from starlette.types import Scope, Send

from atelier.errors import AtelierError
from atelier.json_types import Json
from gateway.core.answer import Answering
from gateway.core.events import Event
from gateway.dialects.event_stream import EventStream
from gateway.dialects.responses.response_archive import Archive
from gateway.dialects.responses.response_object import ending, failed_response, finished_response, unfinished_response
from gateway.dialects.responses.response_output import output_of
from gateway.dialects.responses.response_turn import Turn
from gateway.http.server_sent_events import named_frame

UNDER_WAY = ("in_progress", "calling")
LAST_EVENTS = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
}


class ResponseRenderer:
    """One response's events. How it ends is told by `last`, once it is stored."""

    def __init__(self, turn: Turn, generation: Answering) -> None:
        self._turn = turn
        self._generation = generation
        self._numbers = itertools.count()
        self._output = output_of(turn)

    def opening(self) -> bytes:
        begun = unfinished_response(self._turn, self._generation.plan.name, "in_progress", self._generation.settings)
        told = [{"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")]
        return self._frames([*told, *self._output.begin()])

    def event(self, event: Event) -> bytes:
        return self._frames(self._output.take(event))

    def closing(self, generation: Answering) -> bytes:
        status, _ = ending(generation.ends[0])
        return self._frames(self._output.end(status))

    def finished(self) -> Json:
        return finished_response(self._turn, self._generation, self._output.items)

    def failed(self, error: AtelierError) -> Json:
        """Items are told as far as they were complete."""
        complete = [item for item in self._output.items if item.get("status") not in UNDER_WAY]
        return failed_response(self._turn, self._generation.plan.name, error, complete)

    def last(self, response: Json) -> bytes:
        return self._frames([{"type": LAST_EVENTS[response["status"]], "response": response}])

    def _frames(self, events: Iterable[Json]) -> bytes:
        return b"".join(_frame({**event, "sequence_number": next(self._numbers)}) for event in events)


def _frame(event: Json) -> bytes:
    return named_frame(event["type"], orjson.dumps(event))


class ResponseStream(EventStream):
    """The last event comes when the response is stored, or could not be: it says which."""

    def __init__(self, turn: Turn, generation: Answering, archive: Archive, headers: Mapping[str, str]) -> None:
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
        """Told in the dialect's own last event."""
        scope["atelier.account"].error = error.code
        self._error = error
        return b""
