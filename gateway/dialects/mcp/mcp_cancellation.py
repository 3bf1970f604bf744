"""Cancellation by clients of the handshake protocols, whose notification arrives as an HTTP request of its own."""

import contextlib
import secrets
from collections.abc import Iterator

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER, REQUEST_CANCELLED
from mcp.shared.exceptions import MCPError
from starlette.requests import Request

from gateway.dialects.reply import owner_of

CANCELLED = "notifications/cancelled"

Key = tuple[str, str, object]
"""Owner, session, and the request's id."""


def new_session() -> str:
    """An unguessable name. No state belongs to it, and every gateway accepts any name."""
    return secrets.token_urlsafe(24)


class Cancellations:
    """The requests in progress on this gateway. Middleware of the MCP server.

    If a load balancer sends the notification to another gateway, the request continues: only closing its stream always
    ends it.
    """

    def __init__(self) -> None:
        self._running: dict[Key, anyio.CancelScope] = {}

    async def __call__(self, ctx: ServerRequestContext, call_next: CallNext) -> HandlerResult:
        if ctx.method == CANCELLED:
            self._cancel(_key_of(ctx.request, (ctx.params or {}).get("requestId")))
        key = _key_of(ctx.request, ctx.request_id)
        if key is None:
            return await call_next(ctx)
        with self._cancellable(key):
            return await call_next(ctx)
        raise MCPError(REQUEST_CANCELLED, "The request was cancelled.")

    def _cancel(self, key: Key | None) -> None:
        if key is not None and (scope := self._running.get(key)) is not None:
            scope.cancel()

    @contextlib.contextmanager
    def _cancellable(self, key: Key) -> Iterator[None]:
        with anyio.CancelScope() as scope:
            self._running[key] = scope
            try:
                yield
            finally:
                if self._running.get(key) is scope:  # the client may have reused the id meanwhile
                    del self._running[key]


def _key_of(request: Request | None, request_id: object) -> Key | None:
    session = request.headers.get(MCP_SESSION_ID_HEADER) if request is not None else None
    if request is None or session is None or not isinstance(request_id, str | int):
        return None
    return owner_of(request), session, request_id
