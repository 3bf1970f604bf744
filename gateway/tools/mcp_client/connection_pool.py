"""Connections to MCP servers: one for all who want the same server."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from atelier.backoff import backoff_delay
from atelier.errors import MCPConnectionError
from gateway.core.hosted_tool import ServerTool, ToolOutput
from gateway.core.mcp_server import Endpoint, Server, Servers
from gateway.core.outbound import AddressGuard
from gateway.tools.mcp_client.call_progress import Progress
from gateway.tools.mcp_client.mcp_connection import Connection
from gateway.tools.mcp_client.mcp_http import Dialler
from gateway.tools.mcp_client.mcp_limits import PoolLimits
from gateway.tools.mcp_client.server_callbacks import Elicit, Sampler
from gateway.tools.mcp_client.server_faults import SessionLost, connection_error

MOST_REMEMBERED = 1000  # servers whose failures are known
CLOSE_SECONDS = 10.0  # for all connections to end by themselves


@dataclass(slots=True)
class _Known:
    """A server: its connection, where it has one, and how it failed. `failures`: in a row."""

    connection: Connection | None = None
    failures: int = 0
    not_before: float = 0.0
    reason: str = ""
    last_words: str = ""


class ServerPool:
    """One gateway's. Opens a connection when it is first used; the caller closes the pool."""

    def __init__(
        self,
        guard: AddressGuard,
        *,
        limits: PoolLimits | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        """`guard`: of the addresses that servers which requests name may have."""
        self._limits = limits or PoolLimits()
        self._dialler = Dialler(guard)
        self._sampler = sampler
        self._known: dict[Server, _Known] = {}  # those used last come last
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def tools(self, server: Server) -> Sequence[ServerTool]:
        """Those that can be offered to a model; MCPConnectionError."""
        async with self._using(server) as connection:
            return await connection.tools()

    async def call(
        self,
        server: Server,
        tool: str,
        arguments: Mapping[str, Any],
        on_progress: Progress | None = None,
        *,
        elicit: Elicit | None = None,
    ) -> ToolOutput:
        """MCPConnectionError. To cancel the task that waits for it cancels the call at the server.

        `elicit`: asks the user of this call what the server wants to know, where the operator lets it ask.
        """
        try:
            return await self._call(server, tool, arguments, on_progress, elicit)
        except SessionLost:  # the server was started anew, say: nothing has been done yet
            try:
                return await self._call(server, tool, arguments, on_progress, elicit)
            except SessionLost:
                raise connection_error(server, "refuses the call, in a new session too") from None

    def keep_only(self, operators: Servers) -> None:
        """Close what is connected to other servers of the operator's than these, unless it is in use."""
        kept = {use.server for use in operators.values()}
        for server, known in self._known.items():
            connection = known.connection
            if connection is not None and server not in kept and not _is_guest(server) and not connection.busy:
                connection.leave()

    async def close(self) -> None:
        """Every server's program has ended when this returns."""
        self._closed = True
        for known in self._known.values():
            if known.connection is not None:
                known.connection.abandon()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def state(self, server: Server) -> str:
        """`open`, `opening`, `closed`, or `failed`."""
        known = self._known.get(server)
        if known is None:
            return "closed"
        if known.connection is not None and not known.connection.leaving:
            return "open" if known.connection.version else "opening"
        return "failed" if known.failures else "closed"

    def known_tools(self, server: Server) -> Sequence[ServerTool] | None:
        """As they were last listed; None where it is not connected."""
        known = self._known.get(server)
        return known.connection.known_tools if known is not None and known.connection is not None else None

    def protocol(self, server: Server) -> str:
        """The version that is spoken with it; "" where it is not connected."""
        known = self._known.get(server)
        return known.connection.version if known is not None and known.connection is not None else ""

    def last_words(self, server: Server) -> str:
        """The end of what its program wrote to its standard error."""
        known = self._known.get(server) or _Known()
        return known.connection.words.text if known.connection is not None else known.last_words

    async def _call(
        self,
        server: Server,
        tool: str,
        arguments: Mapping[str, Any],
        on_progress: Progress | None,
        elicit: Elicit | None,
    ) -> ToolOutput:
        async with self._using(server) as connection:
            await connection.tools()  # their schemas say what answers are, and which headers calls have
            return await connection.call(tool, arguments, on_progress, elicit)

    @asynccontextmanager
    async def _using(self, server: Server) -> AsyncIterator[Connection]:
        """Its connection, which stays while it is used. Failures are noted."""
        known = self._known.pop(server, None) or _Known()
        self._known[server] = known
        if known.connection is not None:
            await known.connection.settled()
        connection = self._connected(server, known)
        with connection.in_use():
            try:
                yield connection
            except MCPConnectionError as error:
                if connection.leaving and known.connection is connection:
                    self._note_failure(known, connection, error)
                raise
        if known.connection is connection:
            known.failures = 0

    def _connected(self, server: Server, known: _Known) -> Connection:
        if self._closed:
            raise connection_error(server, "is not called any more: this server is stopping")
        if known.connection is not None and not known.connection.leaving:
            return known.connection
        wait = known.not_before - asyncio.get_running_loop().time()
        if wait > 0:
            raise MCPConnectionError(f"{known.reason} It is tried again in {wait:.0f} seconds.")
        self._make_room(server)
        connection = Connection(server, self._limits, self._dialler, self._sampler)
        known.connection = connection
        self._tasks.add(connection.task)
        connection.task.add_done_callback(self._tasks.discard)
        return connection

    def _note_failure(self, known: _Known, connection: Connection, error: MCPConnectionError) -> None:
        """Once for a connection. The first failure costs no wait, as a program may crash now and then."""
        known.failures = 1 if connection.answered else known.failures + 1
        wait = backoff_delay(known.failures - 1, 1.0, self._limits.longest_backoff)
        known.not_before = asyncio.get_running_loop().time() + wait
        known.reason, known.last_words, known.connection = error.message, connection.words.text, None

    def _make_room(self, server: Server) -> None:
        """For a request's own server, of which there are only so many; and for what is remembered of servers."""
        for old in list(self._known)[: max(0, len(self._known) - MOST_REMEMBERED)]:
            connection = self._known[old].connection
            if old != server and (connection is None or connection.leaving):
                del self._known[old]
        if not _is_guest(server):
            return
        guests = [
            known.connection
            for other, known in self._known.items()
            if _is_guest(other) and known.connection is not None and not known.connection.leaving
        ]
        if len(guests) < self._limits.guests:
            return
        idle = min((guest for guest in guests if not guest.busy), key=lambda guest: guest.used, default=None)
        if idle is None:
            raise connection_error(server, "has no place: too many servers of requests are in use; try again")
        idle.leave()


def _is_guest(server: Server) -> bool:
    return isinstance(server.reach, Endpoint) and server.reach.public_only
