"""What went wrong with a server, in words for those whose request it was. Pure."""

import httpx2
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED
from pydantic import ValidationError

from atelier.errors import MCPConnectionError
from gateway.core.mcp_server import Server
from gateway.core.outbound import ForbiddenAddress

LONGEST_SAID = 500  # characters of what a server says, in a message of ours
ENDED = "ended, or broke off"


class SessionLost(Exception):
    """The server has forgotten the session: what was sent has not been done."""


def connection_error(server: Server, reason: str) -> MCPConnectionError:
    """`reason`: in words that go on from the server's name."""
    return MCPConnectionError(f'The MCP server "{server.label[:100]}" {reason}.')


def reason_of(error: BaseException) -> str:
    """In words that go on from the server's name, with no more than so much of what the server sent."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    said = str(error)[:LONGEST_SAID].rstrip(".") or type(error).__name__
    match error:
        case MCPError(code=code):
            return ENDED if code == CONNECTION_CLOSED else f"answered with an error: {said}"
        case ValidationError():
            return "did not answer as MCP has it"
        case ForbiddenAddress():
            return f"is not called, as its URL is refused: {said}"
        case httpx2.LocalProtocolError():  # whose words have the header itself, which may hold a key
            return "cannot be asked: one of the headers for it is not as HTTP has it"
        case httpx2.HTTPError() | httpx2.InvalidURL():
            return f"cannot be reached: {said}"
    return f"failed: {said}"
