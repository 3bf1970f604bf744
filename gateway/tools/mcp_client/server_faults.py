"""What went wrong with a server, and what follows for the call."""

from collections.abc import Callable

import httpx2
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INVALID_PARAMS
from pydantic import ValidationError

from atelier.errors import MCPConnectionError
from gateway.core.mcp_server_config import Command, ServerConfig
from gateway.core.outbound import ForbiddenAddress
from gateway.tools.mcp_client.mcp_http import ReplyRecord
from gateway.tools.mcp_client.mcp_stdio import ProgramDiagnostics

LONGEST_QUOTE = 500  # characters of a server's own words in a message of ours
CLOSED = "closed the connection"


class SessionLost(Exception):
    """The server no longer knows the session, so it has not run the call."""


class ServerFaults:
    """The evidence of one connection: what its server's program has written, and what its HTTP replies have shown."""

    def __init__(self, server: ServerConfig, on_lost: Callable[[], None]) -> None:
        """`on_lost`: called when an error reply shows that the connection cannot be used any longer."""
        self.program = ProgramDiagnostics()
        self.replies = ReplyRecord()
        self._server = server
        self._on_lost = on_lost

    def error(self, reason: str) -> MCPConnectionError:
        return connection_error(self._server, reason)

    def reason(self, error: Exception) -> str:
        """Why the connection failed: a predicate for `error`."""
        if isinstance(self._server.reach, Command) and isinstance(error, OSError):
            return f"could not be started: {error.strerror or error_reason(error)}"  # without its command line
        if self.program.fault is not None:
            return self.program.fault
        return error_reason(error) if self.replies.status is None else f"returned HTTP {self.replies.status}"

    def error_reply(self, error: MCPError, *, leaving: bool) -> str:
        """A call's error reply, for the model to read. `leaving`: the connection is being closed.

        Raises SessionLost and MCPConnectionError if it is not the tool that failed.
        """
        # A session that another call found lost closes the connection under this call, which may have had its effect.
        if self.replies.session_lost and error.code not in (CONNECTION_CLOSED, INVALID_PARAMS):
            self._on_lost()
            raise SessionLost
        if error.code == CONNECTION_CLOSED or leaving:
            self._on_lost()
            raise self.error(self.program.fault or f"{CLOSED} during the call")
        if self.replies.status in (401, 403) or (self.replies.status or 0) >= 500:
            raise self.error(f"returned HTTP {self.replies.status}")
        self.replies.session_lost = False  # the 400 was for this call's arguments, not for the session
        return error.message[:LONGEST_QUOTE]


def connection_error(server: ServerConfig, reason: str) -> MCPConnectionError:
    """`reason`: a predicate whose subject is the server."""
    return MCPConnectionError(f'The MCP server "{server.label[:100]}" {reason}.')


def error_reason(error: BaseException) -> str:
    """A predicate for `connection_error`, with a bounded quote of what the server sent."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    message = str(error)[:LONGEST_QUOTE].rstrip(".") or type(error).__name__
    match error:
        case MCPError(code=code):
            return CLOSED if code == CONNECTION_CLOSED else f"returned an error: {message}"
        case ValidationError():
            return "sent a reply that is not valid MCP"
        case ForbiddenAddress():
            return f"was not called, because its URL is not allowed: {message}"
        case httpx2.LocalProtocolError():  # whose message quotes the header, which may be a key
            return "was not called, because one of the headers for it is not valid HTTP"
        case httpx2.HTTPError() | httpx2.InvalidURL():
            return f"cannot be reached: {message}"
    return f"failed: {message}"
