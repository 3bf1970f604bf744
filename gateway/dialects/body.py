"""Request bodies as pydantic models."""

import asyncio
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from atelier.errors import BodyTooSlow, InvalidRequest
from gateway.http.error_responses import from_validation

BODY_SECONDS = 60.0  # for a body to arrive
LARGE_BYTES = 2**20  # a body whose parsing would be felt by the streams

M = TypeVar("M", bound=BaseModel)


async def read_body(request: Request, kind: type[M]) -> M:
    """The body; InvalidRequest naming the field at fault, BodyTooSlow. The content type is not asked for."""
    body = await read_bytes(request)
    if len(body) > LARGE_BYTES:
        # The parser holds the interpreter's lock for most of its time: a thread shortens the pause, no more.
        return await asyncio.to_thread(parse, body, kind)
    return parse(body, kind)


async def read_bytes(request: Request) -> bytes:
    """The body as it is; BodyTooSlow."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.body()
    except TimeoutError:
        raise BodyTooSlow() from None


def parse(body: bytes, kind: type[M]) -> M:
    # JSON mode: keys of logit_bias are strings there, and one pass in Rust both parses and
    # validates. The parser bounds nesting and refuses lone surrogates.
    try:
        parsed = kind.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from None
    _refuse_odd_numbers(body)
    return parsed


def _refuse_odd_numbers(body: bytes) -> None:
    """NaN and Infinity are no JSON, but pydantic lets them pass where a field may be anything."""
    if b"NaN" in body or b"Infinity" in body:
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"The body is not valid JSON ({error}).") from None
