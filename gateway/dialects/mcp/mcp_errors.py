"""Errors as MCP's clients get them: JSON-RPC's, also where a request is refused before it is one."""

from mcp_types import INTERNAL_ERROR, INVALID_REQUEST

from atelier.errors import AtelierError
from atelier.json_types import Json
from gateway.http.error_responses import ErrorForm

SCHEMA: Json = {
    "type": "object",
    "required": ["jsonrpc", "error"],
    "properties": {
        "jsonrpc": {"const": "2.0"},
        "id": {"type": ["string", "integer", "null"], "description": "The request's; null where it is not known."},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "integer"}, "message": {"type": "string"}, "data": {}},
        },
    },
}


def code_of(error: AtelierError) -> int:
    return INVALID_REQUEST if error.status < 500 else INTERNAL_ERROR


def error_body(error: AtelierError, request_id: str) -> Json:
    """The HTTP request's id is in the headers alone."""
    told = {"code": code_of(error), "message": error.message, "data": {"code": error.code}}
    return {"jsonrpc": "2.0", "id": None, "error": told}


def error_event(body: bytes) -> bytes:
    return b"event: message\ndata: " + body + b"\n\n"


FORM = ErrorForm(error_body, error_event, "MCPError", SCHEMA)
