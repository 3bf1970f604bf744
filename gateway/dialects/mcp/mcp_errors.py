"""Errors as JSON-RPC errors, including those of requests that are rejected before they are parsed as JSON-RPC."""

import asyncio

import structlog
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST
from pydantic import ValidationError

from atelier.errors import AtelierError, NotFound
from atelier.json_types import Json
from gateway.dialects.reply import account_of
from gateway.http.error_responses import ErrorForm
from gateway.http.streaming import named_frame

HANDLER = "atelier.mcp_handler"  # in the HTTP request's scope: the task that answers it
SCHEMA: Json = {
    "type": "object",
    "required": ["jsonrpc", "error"],
    "properties": {
        "jsonrpc": {"const": "2.0"},
        "id": {"type": ["string", "integer", "null"], "description": "The request's; null if it is not known."},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "integer"}, "message": {"type": "string"}, "data": {}},
        },
    },
}

_log = structlog.get_logger(__name__)


def code_of(error: AtelierError) -> int:
    return INVALID_REQUEST if error.status < 500 else INTERNAL_ERROR


def error_body(error: AtelierError, request_id: str) -> Json:
    """The HTTP request's id is in the headers alone."""
    fault = {"code": code_of(error), "message": error.message, "data": {"code": error.code}}
    return {"jsonrpc": "2.0", "id": None, "error": fault}


def error_event(body: bytes) -> bytes:
    return named_frame("message", body)


FORM = ErrorForm(error_body, error_event, "MCPError", SCHEMA)


def public_error(error: Exception) -> AtelierError:
    """The error for the client; an unexpected one is logged and hidden behind a generic message."""
    if isinstance(error, AtelierError):
        return error
    _log.error("mcp_request_failed", exc_info=error)
    return AtelierError()


async def translate_errors(ctx: ServerRequestContext, call_next: CallNext) -> HandlerResult:
    """Middleware of the MCP server: turns errors into JSON-RPC errors that disclose nothing internal."""
    if ctx.request is not None and ctx.request_id is not None:
        ctx.request.scope[HANDLER] = asyncio.current_task()
    try:
        return await call_next(ctx)
    except (MCPError, ValidationError):  # of the request; the SDK reports it
        raise
    except Exception as error:
        public = public_error(error)
        if ctx.request is not None:
            account_of(ctx.request).error = public.code
        code = INVALID_PARAMS if isinstance(public, NotFound) else code_of(public)
        data = {"code": public.code}
        if ctx.method == "resources/read":
            data["uri"] = str((ctx.params or {}).get("uri"))  # required by the protocol
        raise MCPError(code, public.message, data) from None
