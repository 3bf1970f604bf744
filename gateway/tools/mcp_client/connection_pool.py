"""The pool of connections to MCP servers: all users of one server share one connection."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from atelier.backoff import backoff_delay
from atelier.errors import MCPConnectionError
from gateway.core.hosted_tool import ServerTool, ToolOutput
from gateway.core.mcp_server_config import Endpoint, ServerConfig, Servers
from gateway.core.outbound import AddressGuard
from gateway.tools.mcp_client.mcp_connection import Connection
from gateway.tools.mcp_client.mcp_http import Connector
from gateway.tools.mcp_client.mcp_limits import PoolLimits
from gateway.tools.mcp_client.server_callbacks import ElicitationHandler, Progress, SamplingHandler
from gateway.tools.mcp_client.server_faults import SessionLost, connection_error

ConnectionState = Literal["open", "opening", "closed", "failed"]

MOST_REMEMBERED = 1000  # servers whose failures are kept
CLOSE_SECONDS = 10.0  # for all connections to close by themselves


@dataclass(slots=True)
class _KnownServer:
    """A server's connection, if it has one, and its failures in a row."""

    connection: Connection | None = None
    failures: int = 0
    retry_at: float = 0.0
    last_error: str = ""
    stderr_tail: str = ""


class ServerPool:
    """One gateway's. Opens a connection when it is first used; the caller closes the pool."""

    def __init__(
        self,
        guard: AddressGuard,
        *,
        limits: PoolLimits | None = None,
        sampling: SamplingHandler | None = None,
    ) -> None:
        """`guard`: checks the addresses of servers named by requests."""
        self._limits = limits or PoolLimits()
        self._connector = Connector(guard)
        self._sampling = sampling
        self._known: dict[ServerConfig, _KnownServer] = {}  # least recently used first
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def tools(self, server: ServerConfig) -> Sequence[ServerTool]:
        """Those that can be offered to a model. Raises MCPConnectionError."""
        async with self._using(server) as connection:
            return await connection.tools()

    async def call(
        self,
        server: ServerConfig,
        tool: str,
        arguments: Mapping[str, object],
        on_progress: Progress | None = None,
        *,
        elicit: ElicitationHandler | None = None,
    ) -> ToolOutput:
        """Raises MCPConnectionError. Cancelling the waiting task cancels the call at the server.

        `elicit`: asks the user of this call, for servers with `elicitation`; None: questions are declined.
        """
        try:
            return await self._call(server, tool, arguments, on_progress, elicit)
        except SessionLost:  # such as after a restart of the server; it has not run the call
            try:
                return await self._call(server, tool, arguments, on_progress, elicit)
            except SessionLost:
                raise connection_error(server, "rejects the call even in a new session") from None

    def keep_only(self, operators: Servers) -> None:
        """Closes idle connections to servers of the operator's that are not among these."""
        kept = {use.server for use in operators.values()}
        for server, known in self._known.items():
            connection = known.connection
            if connection is not None and server not in kept and not _is_guest(server) and not connection.busy:
                connection.leave()

    async def close(self) -> None:
        """Returns when every server's program has exited."""
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

    def state(self, server: ServerConfig) -> ConnectionState:
        known = self._known.get(server)
        if known is None:
            return "closed"
        if known.connection is not None and not known.connection.leaving:
            return "open" if known.connection.version else "opening"
        return "failed" if known.failures else "closed"

    def known_tools(self, server: ServerConfig) -> Sequence[ServerTool] | None:
        """As last listed; None if it is not connected."""
        known = self._known.get(server)
        return known.connection.known_tools if known is not None and known.connection is not None else None

    def protocol(self, server: ServerConfig) -> str:
        """The protocol version of its connection; "" if it is not connected."""
        known = self._known.get(server)
        return known.connection.version if known is not None and known.connection is not None else ""

    def stderr_tail(self, server: ServerConfig) -> str:
        """The end of what its program wrote to its standard error."""
        known = self._known.get(server) or _KnownServer()
        return known.connection.stderr_tail if known.connection is not None else known.stderr_tail

    async def _call(
        self,
        server: ServerConfig,
        tool: str,
        arguments: Mapping[str, object],
        on_progress: Progress | None,
        elicit: ElicitationHandler | None,
    ) -> ToolOutput:
        async with self._using(server) as connection:
            await connection.tools()  # whose schemas are needed to check results and to set a call's HTTP headers
            return await connection.call(tool, arguments, on_progress, elicit)

    @asynccontextmanager
    async def _using(self, server: ServerConfig) -> AsyncIterator[Connection]:
        """Its connection, which stays open inside. Records failures."""
        known = self._known.pop(server, None) or _KnownServer()
        self._known[server] = known
        if known.connection is not None:
            await known.connection.probed()
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

    def _connected(self, server: ServerConfig, known: _KnownServer) -> Connection:
        if self._closed:
            raise connection_error(server, "was not called, because this server is stopping")
        if known.connection is not None and not known.connection.leaving:
            return known.connection
        wait = known.retry_at - asyncio.get_running_loop().time()
        if wait > 0:
            raise MCPConnectionError(f"{known.last_error} It is tried again in {wait:.0f} seconds.")
        self._make_room(server)
        connection = Connection(server, self._limits, self._connector, self._sampling)
        known.connection = connection
        self._tasks.add(connection.task)
        connection.task.add_done_callback(self._tasks.discard)
        return connection

    def _note_failure(self, known: _KnownServer, connection: Connection, error: MCPConnectionError) -> None:
        """Called once for a connection. The first failure delays nothing: a program may crash now and then."""
        known.failures = 1 if connection.answered else known.failures + 1
        wait = backoff_delay(known.failures - 1, 1.0, self._limits.longest_backoff)
        known.retry_at = asyncio.get_running_loop().time() + wait
        known.last_error, known.stderr_tail = error.message, connection.stderr_tail
        known.connection = None

    def _make_room(self, server: ServerConfig) -> None:
        """Forgets servers beyond MOST_REMEMBERED, and closes an idle guest's connection if a guest needs one."""
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
        idle = min((guest for guest in guests if not guest.busy), key=lambda guest: guest.used_at, default=None)
        if idle is None:
            raise connection_error(
                server, "was not called, because too many servers named by requests are in use; try again later"
            )
        idle.leave()


def _is_guest(server: ServerConfig) -> bool:
    """Whether a request named it."""
    return isinstance(server.reach, Endpoint) and server.reach.public_only
