"""One connection to a server: opened, used by many, closed."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Protocol, TypeVar

import httpx2
import structlog
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    CallToolResult,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    Implementation,
    ToolListChangedNotification,
)
from pydantic import ValidationError

from atelier import __version__
from atelier.errors import AtelierError, MCPConnectionError
from gateway.mcp_host.http import Dialler, Replies
from gateway.mcp_host.limits import PoolLimits
from gateway.mcp_host.listing import Listing
from gateway.mcp_host.output_check import disagreement
from gateway.mcp_host.result import failed, output_of
from gateway.mcp_host.server import Command, Server
from gateway.mcp_host.stdio import LastWords, program_streams
from gateway.mcp_host.tool import ServerTool, ToolOutput
from gateway.mcp_host.traffic import Connect, Pace, Traffic
from gateway.outbound import ForbiddenAddress

OURS = Implementation(name="lm-atelier", version=__version__)
LONGEST_REASON = 500  # characters of what a server says, in a message of ours

Progress = Callable[[float, float | None, str | None], Awaitable[None]]
"""How far a call is, of how much, and what the server says of it."""

Found = TypeVar("Found")

_log = structlog.get_logger(__name__)


class Sampler(Protocol):
    """Answers what a server asks a model; AtelierError."""

    async def sample(self, server: Server, params: CreateMessageRequestParams) -> CreateMessageResult: ...


class Elicit(Protocol):
    """Asks the user what a server wants to know."""

    async def __call__(self, server: Server, params: ElicitRequestParams) -> ElicitResult: ...


class SessionLost(Exception):
    """The server has forgotten the session: what was sent has not been done."""


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
        elicit: Elicit | None = None,
    ) -> None:
        self.server = server
        self.busy = 0
        self.used = asyncio.get_running_loop().time()
        self.answered = False  # whether it was of any use
        self.words = LastWords()
        self.version = ""  # of the protocol, once it is open
        self._limits = limits
        self._dialler = dialler
        self._sampler = sampler
        self._elicit = elicit
        self._replies = Replies()
        self._traffic = Traffic(Pace(limits.messages_a_second), self._sift, self.leave)
        self._sampling = 0
        self._listing = Listing()
        self._tools: Sequence[ServerTool] | None = None
        self._outputs: Mapping[str, Any] = {}
        self._listed = 0.0
        self._changes = self._seen_changes = 0
        self._turn = asyncio.Lock()
        self._leave = asyncio.Event()
        self._requests: set[asyncio.Task[Any]] = set()
        self._probe: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run())

    @property
    def leaving(self) -> bool:
        return self._leave.is_set() or self.task.done()

    @property
    def known_tools(self) -> Sequence[ServerTool] | None:
        """As they were last listed."""
        return self._tools

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
        async with self._turn:
            if self._tools is None or self._is_stale():
                await self._list(client)
            assert self._tools is not None
            return self._tools

    async def call(self, tool: str, arguments: Mapping[str, Any], on_progress: Progress | None) -> ToolOutput:
        """What the tool answers; MCPConnectionError, SessionLost. Cancelled, it is cancelled at the server too."""
        client = await self.open()
        heard = self._traffic.heard
        progress = _Latest(on_progress) if on_progress is not None else None
        try:
            call = client.call_tool(tool, dict(arguments), progress_callback=progress)
            result = await self._within(self.server.call_seconds, call)
        except TimeoutError:
            self._doubt(client, heard)
            raise self.error(f'did not answer a call of "{tool}" within {self.server.call_seconds:g} seconds') from None
        except MCPError as error:
            return self._refusal(error)
        except Exception as error:  # whatever the SDK makes of what no server should send
            raise self.error(_reason(error)) from None
        self.answered = True
        return await self._judged(tool, result)

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
            read_timeout_seconds=max(self.server.call_seconds, self._limits.list_seconds),
            message_handler=self._on_message,
            sampling_callback=self._sample if self._sampler is not None and self.server.sampling_model else None,
            elicitation_callback=self._ask if self._elicit is not None and self.server.elicitation else None,
        )

    def _connect(self) -> Connect:
        reach = self.server.reach
        if isinstance(reach, Command):
            return lambda: program_streams(reach, self._limits, self.words)
        silent = max(self.server.call_seconds, 60.0) + self._limits.probe_seconds
        return lambda: self._dialler.streams(reach, self._limits, self._replies, silent)

    async def _until_left(self, client: Client) -> None:
        listening = asyncio.create_task(self._hear_of_changes(client))
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

    async def _hear_of_changes(self, client: Client) -> None:
        """Newer servers tell of changes only who listens."""
        tools = client.server_capabilities.tools
        if client.session.discover_result is None or tools is None or not tools.list_changed:
            return
        with contextlib.suppress(Exception):  # what is not heard of is listed anew after some minutes
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._changes += 1

    async def _on_message(self, message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._changes += 1

    def _is_stale(self) -> bool:
        age = asyncio.get_running_loop().time() - self._listed
        return self._changes != self._seen_changes or age > self._limits.refresh_seconds

    async def _list(self, client: Client) -> None:
        changes = self._changes
        self._listing = listing = Listing()
        try:
            await self._within(self._limits.list_seconds, self._read_pages(client))
        except TimeoutError:
            self.leave()
            raise self.error(f"did not list its tools within {self._limits.list_seconds:g} seconds") from None
        except Exception as error:
            self.leave()
            raise self.error(self._why(error)) from None
        self.answered = True
        self._tools = tuple(tool for name, tool in listing.tools.items() if name in listing.callable)
        self._outputs = listing.outputs
        self._listed, self._seen_changes = asyncio.get_running_loop().time(), changes
        if listing.left_out:
            _log.warning("mcp_tools_left_out", server=self.server.label, reasons=listing.left_out)

    async def _read_pages(self, client: Client) -> None:
        """Every page once, and no more than there may be: some servers' lists have no end."""
        if (
            client.server_capabilities.tools is None
            and client.server_capabilities != type(client.server_capabilities)()
        ):
            return  # it says what it has, and has no tools
        cursor: str | None = None
        seen: set[str | None] = set()
        while cursor not in seen and len(seen) < self._limits.pages and len(self._listing.tools) < self._limits.tools:
            seen.add(cursor)
            cursor = await self._page(client, cursor)
            if cursor is None:
                return
        _log.warning("mcp_tools_cut", server=self.server.label, pages=len(seen), tools=len(self._listing.tools))

    async def _page(self, client: Client, cursor: str | None) -> str | None:
        """The next one's cursor, where there is one."""
        try:
            page = await client.list_tools(cursor=cursor)
            self._listing.callable.update(tool.name for tool in page.tools)
            return page.next_cursor
        except MCPError as error:
            if error.code == METHOD_NOT_FOUND:
                return None  # it has other things to offer
            raise

    async def _sift(self, page: dict[str, Any]) -> None:
        # In a thread: to check hundreds of schemas takes a second.
        await asyncio.to_thread(self._listing.take, page, self._limits)

    def _refusal(self, error: MCPError) -> ToolOutput:
        """What a server says instead of a result is for the model, unless it is no answer at all."""
        if self._replies.session_lost:
            self.leave()
            raise SessionLost
        if error.code == CONNECTION_CLOSED or self.leaving:
            self.leave()
            raise self.error(self.words.fault or "ended, or broke off, during the call")
        if self._replies.status in (401, 403):
            raise self.error(f"answered with HTTP {self._replies.status}")
        self.answered = True
        return failed(error.message[:LONGEST_REASON])

    async def _judged(self, tool: str, result: CallToolResult) -> ToolOutput:
        schema = self._outputs.get(tool)
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
            await self._within(self._limits.probe_seconds, sign)
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                self.leave()
        except Exception:
            self.leave()
        finally:
            self._probe = None

    async def _within(self, seconds: float, work: Coroutine[Any, Any, Found]) -> Found:
        """What comes of it; TimeoutError. Who waits no longer goes at once, while the SDK tells the server of it.

        That takes seconds where the server does not read.
        """
        task = asyncio.create_task(work)
        self._requests.add(task)
        task.add_done_callback(self._forget)
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
        finally:
            task.cancel()
        if not done:
            raise TimeoutError
        return task.result()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._requests.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be waiting for it any more

    async def _sample(
        self, context: ClientRequestContext, params: CreateMessageRequestParams
    ) -> CreateMessageResult | ErrorData:
        assert self._sampler is not None
        if self._sampling >= self._limits.sampling:
            return ErrorData(code=INTERNAL_ERROR, message="Too many requests at a time for a model.")
        self._sampling += 1
        try:
            return await self._sampler.sample(self.server, params)
        except AtelierError as error:
            return ErrorData(code=INTERNAL_ERROR, message=error.message)
        finally:
            self._sampling -= 1

    async def _ask(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        assert self._elicit is not None
        try:
            return await self._elicit(self.server, params)
        except AtelierError as error:
            return ErrorData(code=INTERNAL_ERROR, message=error.message)

    def _why(self, error: Exception) -> str:
        if isinstance(self.server.reach, Command) and isinstance(error, OSError):
            return f"could not be started: {str(error)[:LONGEST_REASON]}"
        if self.words.fault is not None:
            return self.words.fault
        if self._replies.status is not None:
            return f"answered with HTTP {self._replies.status}"
        return _reason(error)


class _Latest:
    """Passes progress on, one piece at a time; what comes meanwhile is left out: a server may send any number."""

    def __init__(self, on_progress: Progress) -> None:
        self._on_progress = on_progress
        self._passing = False

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        if self._passing:
            return
        self._passing = True
        try:
            await self._on_progress(progress, total, message[:LONGEST_REASON] if message is not None else None)
        finally:
            self._passing = False


def connection_error(server: Server, reason: str) -> MCPConnectionError:
    return MCPConnectionError(f'The MCP server "{server.label[:100]}" {reason}.')


def _reason(error: BaseException) -> str:
    """In words that go on from the server's name, without what the server sent where that may be long."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    said = str(error)[:LONGEST_REASON].rstrip(".") or type(error).__name__
    match error:
        case MCPError(code=code):
            return "ended, or broke off" if code == CONNECTION_CLOSED else f"answered with an error: {said}"
        case ValidationError():
            return "did not answer as MCP has it"
        case ForbiddenAddress():
            return f"is not called, as its URL is refused: {said}"
        case httpx2.HTTPError() | httpx2.InvalidURL():
            return f"cannot be reached: {said}"
    return f"failed: {said}"
