"""Errors as OpenAI's clients get them; LM Studio's envelope has the same keys."""

from atelier.errors import AtelierError
from atelier.json_types import Json
from gateway.http.error_format import ErrorForm

SCHEMA: Json = {
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
}


def envelope(error: AtelierError) -> Json:
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def error_body(error: AtelierError, request_id: str) -> Json:
    """The request's id is in the headers alone."""
    return envelope(error)


def error_event(body: bytes) -> bytes:
    return b"data: " + body + b"\n\n"


FORM = ErrorForm(error_body, error_event, "Error", SCHEMA)
