"""Ollama's streams: one JSON object a line."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from atelier.errors import AtelierError
from atelier.json_types import Json
from gateway.core.account import Account
from gateway.core.answer import Answering
from gateway.core.completion_draft import Draft
from gateway.core.events import Delta, Event, Finished, Reasoning, ToolCallDelta
from gateway.dialects.event_stream import HEADERS as EVENT_HEADERS
from gateway.dialects.event_stream import EventStream, send_part
from gateway.dialects.ollama.ollama_replies import Part, done_facts, logprob_list, reply_object, told_calls
from gateway.http.disconnect import ClientGone, while_connected
from gateway.http.error_responses import error_event

HEADERS = {**EVENT_HEADERS, "content-type": "application/x-ndjson"}


def line(value: Json) -> bytes:
    return orjson.dumps(value) + b"\n"


class LineRenderer:
    """One answer's lines. The last, with `done`, comes when the generation has ended well."""

    def __init__(self, model: str, part: Part, account: Account, *, thinking: bool) -> None:
        """`thinking`: whether it is told. What has passed of the account's time is the load's."""
        self._model = model
        self._part = part
        self._account = account
        self._thinking = thinking
        self._load_seconds = account.seconds()
        self._calls = Draft()

    def opening(self) -> bytes:
        return b""

    def event(self, event: Event) -> bytes:
        match event:
            case Delta(_, text, logprobs):
                more = {"logprobs": logprob_list(logprobs)} if logprobs else {}
                return self._line(self._part(text, "", ()), **more)
            case Reasoning(_, text):
                return self._line(self._part("", text, ())) if self._thinking else b""
            case ToolCallDelta():
                self._calls.add(event)
                return b""
            case Finished():
                return self._told_calls(event)
        return b""

    def closing(self, generation: Answering) -> bytes:
        facts = done_facts(generation.ends[0], self._account.seconds(), self._load_seconds)
        return line(reply_object(self._model, self._part("", "", ()), done=True, **facts))

    def _told_calls(self, finished: Finished) -> bytes:
        """Whole, since their arguments are objects."""
        calls, written = told_calls(self._calls.completion(finished, logprobs=False).tool_calls)
        return self._line(self._part(written, "", calls)) if calls or written else b""

    def _line(self, part: Json, **more: Any) -> bytes:
        return line(reply_object(self._model, part, done=False, **more))


class LineStream(EventStream):
    """A generation in lines. An error is a line, then the stream ends without one that is done."""

    frame_headers: ClassVar[Mapping[str, str]] = HEADERS


class ProgressStream(Response):
    """Lines of something that goes on elsewhere, whether or not the client stays."""

    def __init__(self, lines: AsyncIterator[Json]) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(HEADERS)
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with while_connected(receive):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": await self._stream(scope, send)})
        except ClientGone:
            scope["atelier.account"].error = "client_gone"

    async def _stream(self, scope: Scope, send: Send) -> bytes:
        """Sends all lines but one that tells of an error, which it returns."""
        try:
            async for each in self._lines:
                await send_part(send, line(each))
        except AtelierError as error:
            scope["atelier.account"].error = error.code
            return error_event(error, scope)
        return b""
