"""Errors as clients get them, each in the form of its dialect."""

import re

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
from gateway.core.account import Account
from gateway.dialects.error_formats import form_of

FAULTS = {"Field required": "is required", "Extra inputs are not permitted": "there is no such field"}
CLIENT_CLOSED_REQUEST = 499  # nginx's number; nobody is there to read it, but the log has it


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


def error_response(error: AtelierError, scope: Scope) -> Response:
    return Response(error_json(error, scope), error.status, error_headers(error), "application/json")


def error_event(error: AtelierError, scope: Scope) -> bytes:
    """For a stream that has begun."""
    return form_of(scope).in_stream(error_json(error, scope))


def error_json(error: AtelierError, scope: Scope) -> bytes:
    account = scope.get("atelier.account")
    request_id = account.request_id if isinstance(account, Account) else ""
    return orjson.dumps(form_of(scope).body(error, request_id))


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
    """The first fault, as a sentence that begins with the field."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = field_path(fault["loc"])
    message = _sentence(str(fault["msg"]))
    return InvalidRequest(f"{path}: {message}" if path else f"The body {message}", param=path or None)


def field_path(location: tuple[int | str, ...]) -> str:
    """`messages[0].content`; what pydantic adds about the branch of a union, in brackets, is left out."""
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
    """What the router raises: no such route, not this method."""
    assert isinstance(error, HTTPException)
    route = f"{request.method} {request.url.path}"
    if error.status_code == MethodNotAllowed.status:
        response = error_response(MethodNotAllowed(f"{route}: this route does not take this method."), request.scope)
        response.headers.update(error.headers or {})
        return response
    missing = NotFound(f"{route}: there is no such route. GET /docs shows those there are.")
    return error_response(missing, request.scope)


async def handle_client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)
