"""Errors as Anthropic's clients get them."""

from atelier.errors import AtelierError
from atelier.json_types import Json
from gateway.http.error_responses import ErrorForm

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}

SCHEMA: Json = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
        "request_id": {"type": "string"},
    },
}


def error_type(status: int) -> str:
    return TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def error_body(error: AtelierError, request_id: str) -> Json:
    told = {"type": error_type(error.status), "message": error.message}
    return {"type": "error", "error": told, "request_id": request_id}


def error_event(body: bytes) -> bytes:
    return b"event: error\ndata: " + body + b"\n\n"


FORM = ErrorForm(error_body, error_event, "AnthropicError", SCHEMA)
