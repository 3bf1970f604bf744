"""Errors as HTTP responses, each in the form of the dialect that the request speaks."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import orjson
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from atelier.errors import (
    AtelierError,
    BodyTooSlow,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    Unauthenticated,
)
from atelier.json_types import Json
from gateway.core.call import Account
from gateway.http.streaming import frame

FORM_OF = "atelier.error_form"  # key in the scope: a FormOf
FAULTS = {"Field required": "is required", "Extra inputs are not permitted": "there is no such field"}


@dataclass(frozen=True, slots=True)
class ErrorForm:
    """How one dialect writes an error. Pure. `body` takes the request's id; `in_stream` frames an encoded body."""

    body: Callable[[AtelierError, str], Json]
    in_stream: Callable[[bytes], bytes]
    name: str  # of its schema in OpenAPI
    schema: Json


FormOf = Callable[[Scope], ErrorForm]
"""The form for a request, by its path and headers. The dialects' table is passed in: this layer imports no dialect."""


def error_envelope(error: AtelierError) -> Json:
    """OpenAI's error object."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


DEFAULT_FORM = ErrorForm(
    body=lambda error, request_id: error_envelope(error),  # the id is in the headers alone
    in_stream=frame,
    name="Error",
    schema={
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"], "description": "The request's field at fault."},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
)
"""OpenAI's, which the server uses wherever no dialect has its own."""


def error_response(error: AtelierError, scope: Scope) -> Response:
    return Response(error_json(error, scope), error.status, error_headers(error), "application/json")


def error_event(error: AtelierError, scope: Scope) -> bytes:
    """The error as the last event of a stream whose headers are sent."""
    return _form(scope).in_stream(error_json(error, scope))


def error_json(error: AtelierError, scope: Scope) -> bytes:
    account = scope.get("atelier.account")
    request_id = account.request_id if isinstance(account, Account) else ""
    return orjson.dumps(_form(scope).body(error, request_id))


def _form(scope: Scope) -> ErrorForm:
    form_of: FormOf | None = scope.get(FORM_OF)
    return form_of(scope) if form_of is not None else DEFAULT_FORM


def error_headers(error: AtelierError) -> dict[str, str]:
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, PayloadTooLarge | BodyTooSlow):
        headers["connection"] = "close"  # the rest of the body is not read
    return headers


def from_validation(error: ValidationError) -> InvalidRequest:
    """The first fault, as a sentence that begins with the field's path."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = field_path(fault["loc"])
    message = _sentence(str(fault["msg"]))
    return InvalidRequest(f"{path}: {message}" if path else f"The body {message}", param=path or None)


def field_path(location: tuple[int | str, ...]) -> str:
    """`messages[0].content`, without the names of union branches that pydantic adds in brackets."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith(("[", "(")):
            path += f".{part}" if path else part
    return path


def _sentence(message: str) -> str:
    message = re.sub(r"^(Input|Value|String|List|Dictionary) should", "must", message)
    message = re.sub(r"^(List|Dictionary|String) must", "must", message)
    message = message.removeprefix("Value error, ")
    if message.startswith("Invalid JSON"):
        return f"is not valid JSON ({message.removeprefix('Invalid JSON: ')})"
    return FAULTS.get(message, message)


async def handle_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AtelierError)
    account = request.scope.get("atelier.account")
    if isinstance(account, Account):
        account.error = error.code
    return error_response(error, request.scope)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """The router's own errors: no such route, or a method that the route does not accept."""
    assert isinstance(error, HTTPException)
    route = f"{request.method} {request.url.path}"
    if error.status_code == MethodNotAllowed.status:
        response = error_response(MethodNotAllowed(f"{route}: this route does not accept this method."), request.scope)
        response.headers.update(error.headers or {})
        return response
    return error_response(NotFound(f"{route}: no such route. GET /docs lists the routes."), request.scope)
