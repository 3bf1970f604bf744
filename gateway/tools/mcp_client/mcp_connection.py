"""One connection to a server: opened, used by many, closed."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, nullcontext
from typing import Any

import structlog
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INVALID_PARAMS, CallToolResult, Implementation

from atelier import __version__
from atelier.errors import MCPConnectionError
from gateway.core.hosted_tool import ServerTool, ToolOutput
from gateway.core.mcp_server import Command, Server
from gateway.core.schema_check import disagreement
from gateway.tools.mcp_client.bounded_wait import Patience
from gateway.tools.mcp_client.call_progress import Latest, Progress
from gateway.tools.mcp_client.mcp_http import Dialler, Replies
from gateway.tools.mcp_client.mcp_limits import PoolLimits
from gateway.tools.mcp_client.mcp_stdio import LastWords, program_streams
from gateway.tools.mcp_client.mcp_traffic import Connect, Pace, Traffic
from gateway.tools.mcp_client.pausable_deadline import Clock
from gateway.tools.mcp_client.server_callbacks import Elicit, Elicitation, Sampler, Sampling
from gateway.tools.mcp_client.server_faults import ENDED, LONGEST_SAID, SessionLost, connection_error, reason_of
from gateway.tools.mcp_client.server_tool_list import ToolCatalogue
from gateway.tools.mcp_client.tool_listing import depth_of
from gateway.tools.mcp_client.tool_result import failed, output_of

OURS = Implementation(name="lm-atelier", version=__version__)

_log = structlog.get_logger(__name__)


class Connection:
    """One server's. Its task alone enters and leaves the SDK's client, as that client's scopes demand.

    It opens at once, and ends by `leave`, when the server does, and after some time without use.
    """

    def __init__(
        self,
        server: Server,
        limits: PoolLimits,
        dialler: Dialler,
        sampler: Sampler | None = None,
    ) -> None:
        self.server = server
        self.busy = 0
        self.used = asyncio.get_running_loop().time()
        self.answered = False  # whether it was of any use
        self.words = LastWords()
        self.version = ""  # of the protocol, once it is open
        self._limits = limits
        self._dialler = dialler
        self._sampling = Sampling(server, sampler, limits.sampling) if sampler and server.sampling_model else None
        self._elicitation = Elicitation(server) if server.elicitation else None
        self._replies = Replies()
        self._catalogue = ToolCatalogue(server.label, limits)
        self._traffic = Traffic(Pace(limits.messages_a_second), self._catalogue.sift, self.leave)
        self._patience = Patience()
        self._leave = asyncio.Event()
        self._probe: asyncio.Task[None] | None = None
        self._listing: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run())

    @property
    def leaving(self) -> bool:
        return self._leave.is_set() or self.task.done()

    @property
    def known_tools(self) -> Sequence[ServerTool] | None:
        """As they were last listed."""
        return self._catalogue.tools

    def leave(self) -> None:
        """It closes, whatever runs over it; nothing new begins."""
        self._leave.set()

    def abandon(self) -> None:
        """As `leave`, and it is not waited for where it has yet to open."""
        self._leave.set()
        if not self._opened.done():
            self.task.cancel()

    async def settled(self) -> None:
        """Whether it is alive is known, where that is being asked."""
        if self._probe is not None:
            await asyncio.wait([self._probe])

    @contextmanager
    def in_use(self) -> Iterator[None]:
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1
            self.used = asyncio.get_running_loop().time()

    async def open(self) -> Client:
        """MCPConnectionError. Whoever gives up waiting leaves the others theirs."""
        return await asyncio.shield(self._opened)

    async def tools(self) -> Sequence[ServerTool]:
        """As last listed, or listed anew where they have changed; MCPConnectionError."""
        client = await self.open()
        if self._catalogue.is_stale:
            await self._listed(client)
        assert self._catalogue.tools is not None
        return self._catalogue.tools

    async def call(
        self, tool: str, arguments: Mapping[str, Any], on_progress: Progress | None, elicit: Elicit | None
    ) -> ToolOutput:
        """What the tool answers; MCPConnectionError, SessionLost. Cancelled, it is cancelled at the server too."""
        if depth_of(arguments) > self._limits.argument_depth:  # which would break the connection, not just the call
            return failed("The arguments lie too deep in one another.")
        client = await self.open()
        heard = self._traffic.heard
        clock = Clock(self.server.call_seconds, self._longest_call)
        try:
            work = self._called(client, tool, arguments, on_progress, elicit, clock)
            result = await self._patience.within(clock, work)
        except TimeoutError:
            self._doubt(client, heard)
            raise self.error(f'did not answer a call of "{tool}" within {self.server.call_seconds:g} seconds') from None
        except MCPError as error:
            return self._refusal(error)
        except Exception as error:  # whatever the SDK makes of what no server should send
            raise self.error(reason_of(error)) from None
        self.answered = True
        return await self._judged(tool, result)

    async def _called(
        self,
        client: Client,
        tool: str,
        arguments: Mapping[str, Any],
        on_progress: Progress | None,
        elicit: Elicit | None,
        clock: Clock,
    ) -> CallToolResult:
        progress = Latest(on_progress) if on_progress is not None else None
        with self._elicitation.during(elicit, clock) if self._elicitation else nullcontext():
            return await client.call_tool(tool, dict(arguments), progress_callback=progress)

    @property
    def _longest_call(self) -> float:
        """In seconds, with what users may take to answer."""
        return self.server.call_seconds + (self._limits.asking_seconds if self.server.elicitation else 0.0)

    def error(self, reason: str) -> MCPConnectionError:
        return connection_error(self.server, reason)

    async def _run(self) -> None:
        reason = "has been closed"
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
            reason = self._why(error)
        finally:
            self._finish(reason)

    def _finish(self, reason: str) -> None:
        self._leave.set()
        if self._probe is not None:
            self._probe.cancel()
        if self._opened.done():
            _log.info("mcp_server_closed", server=self.server.label, reason=reason)
            return
        _log.warning("mcp_server_failed", server=self.server.label, reason=reason, last_words=self.words.text)
        self._opened.set_exception(self.error(reason))
        self._opened.exception()  # nobody may be waiting

    def _client(self) -> Client:
        return Client(
            self._traffic.transport(self._connect()),
            client_info=OURS,
            cache=None,
            read_timeout_seconds=max(self._longest_call, self._limits.list_seconds),
            message_handler=self._catalogue.on_message,
            sampling_callback=self._sampling,
            elicitation_callback=self._elicitation,
        )

    def _connect(self) -> Connect:
        reach = self.server.reach
        if isinstance(reach, Command):
            return lambda: program_streams(reach, self._limits, self.words)
        silent = max(self._longest_call, 60.0) + self._limits.probe_seconds
        return lambda: self._dialler.streams(reach, self._limits, self._replies, silent)

    async def _until_left(self, client: Client) -> None:
        listening = asyncio.create_task(self._catalogue.hear_of_changes(client))
        loop = asyncio.get_running_loop()
        try:
            while not self._leave.is_set():
                left = self.used + self._limits.idle_seconds - loop.time()
                if left <= 0 and not self.busy:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left if left > 0 else self._limits.idle_seconds):
                        await self._leave.wait()
        finally:
            self._leave.set()
            listening.cancel()
            await asyncio.wait([listening])

    async def _listed(self, client: Client) -> None:
        """One list for all who want it now. Whoever gives up waiting leaves it: the page of a list that was broken
        off could come during the next one, and be taken for its own.
        """
        if self._listing is None:
            self._listing = asyncio.create_task(self._list(client))
            self._listing.add_done_callback(self._forget_listing)
        await asyncio.shield(self._listing)

    def _forget_listing(self, listing: asyncio.Task[None]) -> None:
        self._listing = None
        if not listing.cancelled():
            listing.exception()  # nobody may be waiting any more

    async def _list(self, client: Client) -> None:
        try:
            await self._patience.within(Clock(self._limits.list_seconds), self._catalogue.list(client))
        except TimeoutError:
            self.leave()
            raise self.error(f"did not list its tools within {self._limits.list_seconds:g} seconds") from None
        except Exception as error:
            self.leave()
            raise self.error(self._why(error)) from None
        self.answered = True

    def _refusal(self, error: MCPError) -> ToolOutput:
        """What a server says instead of a result is for the model, unless it is no answer at all."""
        # Another call's lost session closes the connection under this one, which may have had its effect.
        if self._replies.session_lost and error.code not in (CONNECTION_CLOSED, INVALID_PARAMS):
            self.leave()
            raise SessionLost
        if error.code == CONNECTION_CLOSED or self.leaving:
            self.leave()
            raise self.error(self.words.fault or f"{ENDED}, during the call")
        if self._replies.status in (401, 403) or (self._replies.status or 0) >= 500:
            raise self.error(f"answered with HTTP {self._replies.status}")
        self._replies.session_lost = False  # a bad request was one of this call's arguments
        self.answered = True
        return failed(error.message[:LONGEST_SAID])

    async def _judged(self, tool: str, result: CallToolResult) -> ToolOutput:
        schema = self._catalogue.outputs.get(tool)
        if schema is not None and not result.is_error:
            wrong = await asyncio.to_thread(disagreement, schema, result.structured_content)
            if wrong is not None:
                return failed(f"The tool's output is not what its schema says: {wrong}")
        return output_of(result, self._limits)

    def _doubt(self, client: Client, heard: int) -> None:
        """A server that has said nothing during a call is asked for a sign of life, and closed if it gives none."""
        if self._traffic.heard == heard and self._probe is None:
            self._probe = asyncio.create_task(self._ask_for_life(client))

    async def _ask_for_life(self, client: Client) -> None:
        modern = client.session.discover_result is not None
        sign = client.session.send_discover(self.version) if modern else client.session.send_ping()
        try:
            await self._patience.within(Clock(self._limits.probe_seconds), sign)
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                self.leave()
        except Exception:
            self.leave()
        finally:
            self._probe = None

    def _why(self, error: Exception) -> str:
        if isinstance(self.server.reach, Command) and isinstance(error, OSError):
            return (
                f"could not be started: {error.strerror or reason_of(error)}"  # the command is the operator's to know
            )
        if self.words.fault is not None:
            return self.words.fault
        if self._replies.status is not None:
            return f"answered with HTTP {self._replies.status}"
        return reason_of(error)
