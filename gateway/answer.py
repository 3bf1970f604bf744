"""From a call to an HTTP response, the same for every dialect."""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from atelier.constraint import KEYWORD, MOST_KEYWORDS
from gateway.account import Account
from gateway.call import Call, Origin
from gateway.disconnect import while_connected
from gateway.events import Completion
from gateway.generation import Generation
from gateway.inference import Inference
from gateway.sse import EventStream, Renderer

UNENFORCED_HEADER = "x-atelier-unenforced"  # keywords of the schema that the answer may violate
TRUNCATED_HEADER = "x-atelier-truncated"  # what was left out of the prompts, to make them fit


def json_response(value: Any, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), headers=headers, media_type="application/json")


def answer_headers(generation: Generation) -> dict[str, str]:
    """What a client should know of an answer beside its text."""
    headers: dict[str, str] = {}
    if keywords := [keyword for keyword in generation.unenforced if re.fullmatch(KEYWORD, keyword)]:
        headers[UNENFORCED_HEADER] = ", ".join(keywords[:MOST_KEYWORDS])
    if dropped := generation.dropped:
        headers[TRUNCATED_HEADER] = f"messages={dropped.messages}, tokens={dropped.tokens}"
    return headers


def account_of(request: Request) -> Account:
    account: Account = request.scope["atelier.account"]
    return account


def origin_of(request: Request) -> Origin:
    """All clients share one key, so a worker's time is shared out by the client's address."""
    host = request.client.host if request.client else ""
    return Origin(account_of(request).request_id, hashlib.sha256(host.encode()).hexdigest()[:16])


async def stream_answer(
    request: Request, inference: Inference, call: Call, renderer: Callable[[Generation], Renderer]
) -> Response:
    """The stream of a generation that a worker has accepted: refusals come before the headers."""
    async with while_connected(request.receive):
        generation = await inference.start(call, origin_of(request), account_of(request))
        return EventStream(generation, renderer(generation), answer_headers(generation))


async def whole_answer(
    request: Request, inference: Inference, call: Call, render: Callable[[Generation, list[Completion]], Any]
) -> Response:
    """Everything in one JSON object."""
    async with while_connected(request.receive):
        generation = await inference.start(call, origin_of(request), account_of(request))
        try:
            value = render(generation, await generation.collect())
            return json_response(value, answer_headers(generation))
        finally:
            generation.close()
