"""Request bodies: reading, validation, and what those of all dialects have in common."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Discriminator, Field, ValidationError
from starlette.requests import Request

from atelier.errors import BodyTooSlow, InvalidRequest
from atelier.submission import LONGEST_TIMEOUT, MOST_PRIORITY
from gateway.http.error_responses import from_validation

BODY_SECONDS = 60.0  # for a body to arrive
LARGE_BYTES = 2**20  # parsing a larger body delays streams noticeably
LONGEST_TTL = 10 * 365 * 86_400  # seconds
NEITHER = "(neither)"

Ttl = Annotated[float, Field(ge=-1, le=LONGEST_TTL, allow_inf_nan=False)]
PresetName = Annotated[str, Field(max_length=200)]
PRESET = "Provides the settings that the request omits."
TTL_IF_LOADED = "If this request loads the model: idle seconds until it is unloaded; -1: never."

M = TypeVar("M", bound=BaseModel)


class Body(BaseModel):
    """Unknown fields are ignored; values of the wrong type are rejected."""

    model_config = ConfigDict(strict=True, extra="ignore")


class ServingFields(Body):
    """How a generation is served: LM Atelier's own fields, under one name in every dialect."""

    preset: PresetName | None = Field(None, description=PRESET)
    ttl: Ttl | None = Field(None, description=TTL_IF_LOADED)
    priority: Annotated[int, Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY)] | None = Field(
        None, description="Requests with a lower value start earlier. Default: 0."
    )
    timeout: Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT)] | None = Field(
        None, description="Seconds until an unfinished request fails."
    )


def by_json_type(tags: Mapping[type, str], error: str, message: str) -> Discriminator:
    """Chooses by the value's type. `error` and `message`: of a value of any other type."""
    return Discriminator(
        lambda value: tags.get(type(value), NEITHER), custom_error_type=error, custom_error_message=message
    )


def by_content(error: str, message: str) -> Discriminator:
    """Chooses "(text)" for a string; for a list "(numbers)", "(lists)" or "(list)" by its first element."""

    def tag(value: object) -> str:
        if isinstance(value, str):
            return "(text)"
        if not isinstance(value, list):
            return NEITHER
        first = value[0] if value else ""
        if isinstance(first, list):
            return "(lists)"
        return "(numbers)" if isinstance(first, int) else "(list)"

    return Discriminator(tag, custom_error_type=error, custom_error_message=message)


def by_type_field(*types: str) -> Discriminator:
    """Chooses by an object's `type`: "(text)" for "text", and "(other)" for any type that is not listed."""

    def tag(value: object) -> str:
        kind = value.get("type") if isinstance(value, dict) else None
        return f"({kind})" if isinstance(kind, str) and kind in types else "(other)"

    return Discriminator(tag)


def requested_logprobs(requested: bool | None, top: int | None, requirement: str = "logprobs to be true") -> int | None:
    """How many of the likeliest tokens to report beside each token; None: no log-probabilities.

    `requirement`: what `top` needs. Raises InvalidRequest.
    """
    if requested:
        return top or 0
    if top:
        raise InvalidRequest(f"top_logprobs: needs {requirement}", param="top_logprobs")
    return None


async def read_body(request: Request, kind: type[M]) -> M:
    """The validated body, whatever its content type. Raises InvalidRequest with the field at fault, and BodyTooSlow."""
    body = await read_bytes(request)
    if len(body) > LARGE_BYTES:
        # The parser holds the interpreter's lock most of the time: a thread only shortens the pause.
        return await asyncio.to_thread(parse, body, kind)
    return parse(body, kind)


async def read_bytes(request: Request) -> bytes:
    """The raw body. Raises BodyTooSlow."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.body()
    except TimeoutError:
        raise BodyTooSlow() from None


def parse(body: bytes, kind: type[M]) -> M:
    """Raises InvalidRequest with the field at fault."""
    # In JSON mode integer keys, as in logit_bias, are accepted as strings, and one pass in Rust parses and validates.
    # The parser limits nesting and rejects lone surrogates.
    try:
        parsed = kind.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from None
    _reject_odd_numbers(body)
    return parsed


def _reject_odd_numbers(body: bytes) -> None:
    """NaN and Infinity are not JSON, but pydantic accepts them in fields of any type."""
    if b"NaN" in body or b"Infinity" in body:
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"The body is not valid JSON ({error}).") from None
