"""From a call to an HTTP response, the same for every dialect."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from atelier.submission import KEYWORD, MOST_KEYWORDS
from gateway.core.call import Account, Call, Origin
from gateway.core.call_plan import Effective
from gateway.core.events import Completion, Finished
from gateway.core.inference import Answering, Inference
from gateway.dialects.event_stream import EventStream, Renderer
from gateway.http.disconnect import while_connected

TIMING_HEADER = "server-timing"  # https://www.w3.org/TR/server-timing/
UNENFORCED_HEADER = "x-atelier-unenforced"  # keywords of the schema that the answer may violate
TRUNCATED_HEADER = "x-atelier-truncated"  # what was left out of the prompts, to make them fit
SETTINGS_HEADER = "x-atelier-settings"  # in a request "echo", in the reply the settings that held, with their origins
LONGEST_ECHO = 200  # bytes of one value; what is longer is told by its length


def json_response(value: Any, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), headers=headers, media_type="application/json")


def answer_headers(request: Request, generation: Answering) -> dict[str, str]:
    """What a client should know of an answer beside its text."""
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


def _echoed(value: Any) -> Any:
    length = len(json.dumps(value))
    return value if length <= LONGEST_ECHO else f"({length} characters)"


def rfc3339(seconds: float, timespec: str) -> str:
    """A time since the epoch, in UTC. `timespec`: its precision, as for `datetime.isoformat`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def account_of(request: Request) -> Account:
    account: Account = request.scope["atelier.account"]
    return account


def origin_of(request: Request) -> Origin:
    """All clients share one key, so a worker's time is shared out by the client's address."""
    return Origin(account_of(request).request_id, fairness_key(request))


def fairness_key(connection: HTTPConnection) -> str:
    host = connection.client.host if connection.client else ""
    return hashlib.sha256(host.encode()).hexdigest()[:16]


def owner_of(request: Request) -> str:
    """Whose what this request stores is; "" where the server asks for no key."""
    return str(request.scope.get("atelier.owner", ""))


async def stream_answer(
    request: Request, inference: Inference, call: Call, renderer: Callable[[Answering], Renderer]
) -> Response:
    """The stream of a generation that a worker has accepted: refusals come before the headers."""
    async with while_connected(request.receive):
        generation = await inference.start(call, origin_of(request), account_of(request))
        return EventStream(generation, renderer(generation), answer_headers(request, generation))


async def whole_answer(
    request: Request, inference: Inference, call: Call, render: Callable[[Answering, list[Completion]], Any]
) -> Response:
    """Everything in one JSON object."""
    async with while_connected(request.receive):
        generation = await inference.start(call, origin_of(request), account_of(request))
        try:
            value = render(generation, await generation.collect())
            return json_response(value, answer_headers(request, generation))
        finally:
            generation.close()
