"""Replies of every dialect: JSON objects and streams, and the headers that describe how they were generated."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import ClassVar, Protocol

import orjson
import structlog
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from atelier.errors import AtelierError
from atelier.generation_types import Finished
from atelier.submission import KEYWORD, MOST_KEYWORDS
from gateway.core.call import Account, Call, Origin
from gateway.core.call_plan import Effective
from gateway.core.events import Completion, Event
from gateway.core.inference import InferenceCore, RunningAnswer
from gateway.http.error_responses import error_event
from gateway.http.streaming import HEADERS, ClientGone, while_connected

TIMING_HEADER = "server-timing"  # https://www.w3.org/TR/server-timing/
UNENFORCED_HEADER = "x-atelier-unenforced"  # keywords of the schema that were not enforced
TRUNCATED_HEADER = "x-atelier-truncated"  # what was dropped from the prompts to make them fit
SETTINGS_HEADER = "x-atelier-settings"  # request: "echo"; reply: the effective settings and their origins
LONGEST_ECHO = 200  # characters of one value; a longer one is replaced by its length
_log = structlog.get_logger(__name__)


def json_response(value: object, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), headers=headers, media_type="application/json")


def account_of(request: Request) -> Account:
    account: Account = request.scope["atelier.account"]
    return account


def origin_of(request: Request) -> Origin:
    """Fairness is by the client's address, since all clients share one key."""
    return Origin(account_of(request).request_id, fairness_key(request))


def fairness_key(connection: HTTPConnection) -> str:
    host = connection.client.host if connection.client else ""
    return hashlib.sha256(host.encode()).hexdigest()[:16]


def owner_of(request: Request) -> str:
    """The owner of what this request stores: a hash of the key, or "" if the server requires none."""
    return str(request.scope.get("atelier.owner", ""))


def answer_headers(request: Request, generation: RunningAnswer) -> dict[str, str]:
    """How the generation was served: timings, settings, and what was dropped or not enforced."""
    headers = {TIMING_HEADER: server_timing(generation.accept_seconds, generation.ends.values())}
    if request.headers.get(SETTINGS_HEADER) == "echo" and generation.settings is not None:
        headers[SETTINGS_HEADER] = settings_echo(generation.settings)
    if keywords := [keyword for keyword in generation.unenforced if re.fullmatch(KEYWORD, keyword)]:
        headers[UNENFORCED_HEADER] = ", ".join(keywords[:MOST_KEYWORDS])
    if dropped := generation.dropped:
        headers[TRUNCATED_HEADER] = f"messages={dropped.messages}, tokens={dropped.tokens}"
    return headers


def server_timing(accept_seconds: float, ends: Collection[Finished] = ()) -> str:
    """The header's value. `accept_seconds`: until a worker accepted the request, including a load.

    `ends`: of every choice that has ended. Of several choices each figure is the longest.
    """
    spans = {"accept": accept_seconds}
    if ends:
        figures = [end.statistics for end in ends]
        spans["queue"] = max(each.queue_seconds for each in figures)
        spans["prefill"] = max(each.time_to_first_token_seconds - each.queue_seconds for each in figures)
        spans["decode"] = max(each.generation_seconds for each in figures)
    # In milliseconds, none below zero: clocks are read one after the other.
    return ", ".join(f"{name};dur={max(0.0, seconds) * 1000:.1f}" for name, seconds in spans.items())


def settings_echo(settings: Effective) -> str:
    """As JSON in ASCII: {"temperature": {"value": 0.2, "origin": "preset precise"}, ...}."""
    echoed = {name: {"value": _echoed(value.value), "origin": value.origin} for name, value in settings.values.items()}
    return json.dumps(echoed, separators=(",", ":"))


def _echoed(value: object) -> object:
    length = len(json.dumps(value))
    return value if length <= LONGEST_ECHO else f"({length} characters)"


def rfc3339(seconds: float, timespec: str) -> str:
    """A time since the epoch, in UTC. `timespec`: its precision, as for `datetime.isoformat`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def around_text(encode: Callable[[str], bytes]) -> tuple[bytes, bytes]:
    """The bytes before and after a text in what `encode` returns, so that a stream encodes them only once."""
    placeholder = "\0"  # occurs in no name or id
    before, _, after = encode(placeholder).partition(orjson.dumps(placeholder))
    return before, after


async def send_part(send: Send, body: bytes) -> None:
    """A part of a body, not the last."""
    await send({"type": "http.response.body", "body": body, "more_body": True})


class Renderer(Protocol):
    """A dialect's bytes for one stream."""

    def opening(self) -> bytes:
        """The bytes before any text."""

    def event(self, event: Event) -> bytes: ...

    def closing(self, generation: RunningAnswer) -> bytes:
        """The bytes after the successful end of every choice."""


class StreamedResponse(Response):
    """A raw ASGI response, sent part by part until its end or until the client disconnects.

    Each send waits while the client's socket is full. An error after the headers is a part too, and the last one.
    """

    frame_headers: ClassVar[Mapping[str, str]] = HEADERS

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**self.frame_headers, **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with while_connected(receive):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": await self._stream(scope, send)})
        except ClientGone:
            scope["atelier.account"].error = "client_gone"
        finally:
            self._close()

    async def _stream(self, scope: Scope, send: Send) -> bytes:
        """Sends all but the last bytes, which it returns."""
        raise NotImplementedError

    def _close(self) -> None:
        """Release what the stream owns, however it ended."""


def failed(scope: Scope, error: AtelierError) -> bytes:
    """The last part of a stream that ends with this error."""
    scope["atelier.account"].error = error.code
    return error_event(error, scope)


class EventStream(StreamedResponse):
    """Sends a generation that has begun, one part for each step's batch, and closes it.

    After an error the stream has no end marker.
    """

    def __init__(self, generation: RunningAnswer, renderer: Renderer, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self._generation = generation
        self._renderer = renderer

    def _close(self) -> None:
        self._generation.close()

    async def _stream(self, scope: Scope, send: Send) -> bytes:
        render = self._renderer.event
        try:
            await self._open(send)
            while batch := await self._generation.next_batch():
                body = render(batch[0]) if len(batch) == 1 else b"".join(map(render, batch))
                await send_part(send, body)
            return await self._end()
        except AtelierError as error:
            return self._failed(scope, error)
        except Exception:
            _log.exception("stream_failed", request_id=self._generation.plan.origin.request_id)
            return self._failed(scope, AtelierError())

    async def _open(self, send: Send) -> None:
        """Send the part before the first event."""
        await send_part(send, self._renderer.opening())

    async def _end(self) -> bytes:
        """The bytes after the last event."""
        return self._renderer.closing(self._generation)

    def _failed(self, scope: Scope, error: AtelierError) -> bytes:
        return failed(scope, error)


async def stream_answer(
    request: Request, inference: InferenceCore, call: Call, renderer: Callable[[RunningAnswer], Renderer]
) -> Response:
    """A stream, returned once a worker has accepted the request: earlier errors are plain error responses."""
    async with while_connected(request.receive):
        generation = await inference.start(call, origin_of(request), account_of(request))
        return EventStream(generation, renderer(generation), answer_headers(request, generation))


async def whole_answer(
    request: Request, inference: InferenceCore, call: Call, render: Callable[[RunningAnswer, list[Completion]], object]
) -> Response:
    """The whole reply as one JSON object."""
    async with while_connected(request.receive):
        generation = await inference.start(call, origin_of(request), account_of(request))
        try:
            value = render(generation, await generation.collect())
            return json_response(value, answer_headers(request, generation))
        finally:
            generation.close()
