"""Errors as LM Studio's v1 routes tell them, and ours beside them."""

from atelier.errors import (
    AtelierError,
    DownloadNotFound,
    InstanceNotFound,
    MCPConnectionError,
    ModelNotFound,
    UnsupportedField,
)
from atelier.json_types import Json
from gateway.http.error_responses import ErrorForm
from gateway.http.server_sent_events import named_frame

TYPES = (
    *("invalid_request", "model_not_found", "job_not_found", "mcp_connection_error", "not_implemented"),
    "internal_error",
)

SCHEMA: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"enum": list(TYPES)},
                "message": {"type": "string"},
                "code": {"type": "string"},
                "param": {"type": "string", "description": "The request's field at fault."},
            },
        }
    },
}


def error_type(error: AtelierError) -> str:
    """One of LM Studio's; the code says more."""
    match error:
        case ModelNotFound() | InstanceNotFound():
            return "model_not_found"
        case DownloadNotFound():
            return "job_not_found"
        case MCPConnectionError():
            return "mcp_connection_error"
        case UnsupportedField():
            return "not_implemented"
        case _ if error.status < 500:
            return "invalid_request"
    return "internal_error"


def error_body(error: AtelierError, request_id: str) -> Json:
    """The request's id is in the headers alone."""
    told = {"type": error_type(error), "message": error.message, "code": error.code}
    return {"error": {**told, "param": error.param} if error.param else told}


def error_event(body: bytes) -> bytes:
    """With the event's type in its data, as all of LM Studio's have it."""
    return named_frame("error", b'{"type":"error",' + body.removeprefix(b"{"))


FORM = ErrorForm(error_body, error_event, "LMStudioError", SCHEMA)
