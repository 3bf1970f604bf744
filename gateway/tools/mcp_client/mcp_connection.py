"""One connection to a server: opened, shared by many callers, closed."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, nullcontext

import structlog
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, CallToolResult, Implementation

from atelier import __version__
from atelier.errors import MCPConnectionError
from gateway.core.hosted_tool import ServerTool, ToolOutput
from gateway.core.mcp_server_config import Command, ServerConfig
from gateway.tools.mcp_client.mcp_http import Connector
from gateway.tools.mcp_client.mcp_limits import PoolLimits
from gateway.tools.mcp_client.mcp_stdio import program_streams
from gateway.tools.mcp_client.mcp_traffic import Connect, RateLimit, Traffic
from gateway.tools.mcp_client.pausable_deadline import PausableDeadline, PendingRequests
from gateway.tools.mcp_client.server_callbacks import (
    ElicitationCallback,
    ElicitationHandler,
    Progress,
    ProgressCallback,
    SamplingCallback,
    SamplingHandler,
)
from gateway.tools.mcp_client.server_faults import ServerFaults, error_reason
from gateway.tools.mcp_client.server_tool_list import ServerToolList
from gateway.tools.mcp_client.tool_listing import depth_of
from gateway.tools.mcp_client.tool_result import checked_output, failed, output_of

CLIENT_INFO = Implementation(name="lm-atelier", version=__version__)

_log = structlog.get_logger(__name__)


class Connection:
    """Opens at once. Closes after `leave`, when the server does, and when idle.

    One task enters and leaves the SDK's client, whose cancel scopes require that.
    """

    def __init__(
        self,
        server: ServerConfig,
        limits: PoolLimits,
        connector: Connector,
        sampling: SamplingHandler | None = None,
    ) -> None:
        self.server = server
        self.busy = 0
        self.used_at = asyncio.get_running_loop().time()
        self.version = ""  # of the protocol, once open
        self._limits = limits
        self._connector = connector
        samples = sampling if server.sampling_model else None
        self._sampling = SamplingCallback(server, samples, limits.sampling) if samples else None
        self._elicitation = ElicitationCallback(server) if server.elicitation else None
        self._faults = ServerFaults(server, self.leave)
        self._requests = PendingRequests()
        self._tools = ServerToolList(server.label, limits, self._requests, self._listing_failed)
        self._traffic = Traffic(RateLimit(limits.messages_a_second), self._tools.sanitize, self.leave)
        self._has_called = False
        self._leave = asyncio.Event()
        self._probe: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run())

    @property
    def answered(self) -> bool:
        """Whether the server has listed its tools or answered a call."""
        return self._has_called or self._tools.tools is not None

    @property
    def leaving(self) -> bool:
        return self._leave.is_set() or self.task.done()

    @property
    def known_tools(self) -> Sequence[ServerTool] | None:
        """As last listed."""
        return self._tools.tools

    @property
    def stderr_tail(self) -> str:
        """The end of what its program wrote to its standard error."""
        return self._faults.program.stderr_tail

    def leave(self) -> None:
        """Closes it; calls in progress fail."""
        self._leave.set()

    def abandon(self) -> None:
        """As `leave`, and cancels the connection if it is still opening."""
        self._leave.set()
        if not self._opened.done():
            self.task.cancel()

    async def probed(self) -> None:
        """Waits for the liveness probe, if one is in progress."""
        if self._probe is not None:
            await asyncio.wait([self._probe])

    @contextmanager
    def in_use(self) -> Iterator[None]:
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1
            self.used_at = asyncio.get_running_loop().time()

    async def tools(self) -> Sequence[ServerTool]:
        """As last listed, or listed again if they may have changed. Raises MCPConnectionError."""
        return await self._tools.current(await self._open())

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, object],
        on_progress: Progress | None,
        elicit: ElicitationHandler | None,
    ) -> ToolOutput:
        """The tool's output. Raises MCPConnectionError, SessionLost. Cancellation is sent to the server."""
        if depth_of(arguments) > self._limits.argument_depth:  # the SDK would fail, and the connection with it
            return failed("The arguments are nested too deeply.")
        client = await self._open()
        received = self._traffic.received
        deadline = PausableDeadline(self.server.call_seconds, self._longest_call)
        try:
            result = await self._requests.run(
                deadline, self._call_tool(client, tool, arguments, on_progress, elicit, deadline)
            )
        except TimeoutError:
            if self._traffic.received == received:
                self._start_probe(client)
            raise self._faults.error(
                f'did not answer a call of "{tool}" within {self.server.call_seconds:g} seconds'
            ) from None
        except MCPError as error:
            message = self._faults.error_reply(error, leaving=self.leaving)
            self._has_called = True
            return failed(message)
        except Exception as error:  # whatever the SDK raises on invalid messages
            raise self._faults.error(error_reason(error)) from None
        self._has_called = True
        schema = self._tools.output_schemas.get(tool)
        if schema is None or result.is_error:
            return output_of(result, self._limits)
        return await asyncio.to_thread(checked_output, result, schema, self._limits)

    async def _open(self) -> Client:
        """The SDK's client, once connected. Raises MCPConnectionError. A cancelled caller does not stop the opening."""
        return await asyncio.shield(self._opened)

    async def _call_tool(
        self,
        client: Client,
        tool: str,
        arguments: Mapping[str, object],
        on_progress: Progress | None,
        elicit: ElicitationHandler | None,
        deadline: PausableDeadline,
    ) -> CallToolResult:
        progress = ProgressCallback(on_progress) if on_progress is not None else None
        with self._elicitation.during(elicit, deadline) if self._elicitation else nullcontext():
            return await client.call_tool(tool, dict(arguments), progress_callback=progress)

    @property
    def _longest_call(self) -> float:
        """Seconds, including those that users may take to answer."""
        return self.server.call_seconds + (self._limits.asking_seconds if self.server.elicitation else 0.0)

    def _listing_failed(self, error: Exception) -> MCPConnectionError:
        self.leave()
        if isinstance(error, TimeoutError):
            return self._faults.error(f"did not list its tools within {self._limits.list_seconds:g} seconds")
        return self._faults.error(self._faults.reason(error))

    def _start_probe(self, client: Client) -> None:
        """A server that has sent nothing during a call may hang: it is pinged, and closed if it does not answer."""
        if self._probe is None:
            self._probe = asyncio.create_task(self._ping(client))

    async def _ping(self, client: Client) -> None:
        has_discover = client.session.discover_result is not None  # protocol 2026-07-28, which has no ping
        ping = client.session.send_discover(self.version) if has_discover else client.session.send_ping()
        try:
            await self._requests.run(PausableDeadline(self._limits.probe_seconds), ping)
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                self.leave()
        except Exception:
            self.leave()
        finally:
            self._probe = None

    async def _run(self) -> None:
        reason = "was closed"
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self._limits.connect_seconds):
                    client = await stack.enter_async_context(self._client())
                self.version = client.protocol_version
                _log.info("mcp_server_open", server=self.server.label, protocol=self.version)
                if not self._opened.done():
                    self._opened.set_result(client)
                await self._until_left(client)
        except TimeoutError:
            reason = f"was not ready within {self._limits.connect_seconds:g} seconds"
        except Exception as error:
            reason = self._faults.reason(error)
        finally:
            self._finish(reason)

    async def _until_left(self, client: Client) -> None:
        """Returns after `leave`, or when it has been idle for long enough."""
        watching = asyncio.create_task(self._tools.watch_changes(client))
        loop = asyncio.get_running_loop()
        try:
            while not self._leave.is_set():
                left = self.used_at + self._limits.idle_seconds - loop.time()
                if left <= 0 and not self.busy:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left if left > 0 else self._limits.idle_seconds):
                        await self._leave.wait()
        finally:
            self._leave.set()
            watching.cancel()
            await asyncio.wait([watching])

    def _finish(self, reason: str) -> None:
        self._leave.set()
        if self._probe is not None:
            self._probe.cancel()
        if self._opened.done():
            _log.info("mcp_server_closed", server=self.server.label, reason=reason)
            return
        _log.warning("mcp_server_failed", server=self.server.label, reason=reason, last_words=self.stderr_tail)
        self._opened.set_exception(self._faults.error(reason))
        self._opened.exception()  # without this asyncio logs it if no caller waits

    def _client(self) -> Client:
        return Client(
            self._traffic.transport(self._connect()),
            client_info=CLIENT_INFO,
            cache=None,
            read_timeout_seconds=max(self._longest_call, self._limits.list_seconds),
            message_handler=self._tools.on_message,
            sampling_callback=self._sampling,
            elicitation_callback=self._elicitation,
        )

    def _connect(self) -> Connect:
        reach = self.server.reach
        if isinstance(reach, Command):
            return lambda: program_streams(reach, self._limits, self._faults.program)
        read_seconds = max(self._longest_call, 60.0) + self._limits.probe_seconds
        return lambda: self._connector.streams(reach, self._limits, self._faults.replies, read_seconds)
