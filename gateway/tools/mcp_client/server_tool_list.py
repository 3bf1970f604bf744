"""The tools of one server, as last listed over one connection."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

import structlog
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND, ToolListChangedNotification

from atelier.json_types import Json
from gateway.core.hosted_tool import ServerTool
from gateway.tools.mcp_client.mcp_limits import PoolLimits
from gateway.tools.mcp_client.pausable_deadline import PausableDeadline, PendingRequests, retrieve_exception
from gateway.tools.mcp_client.tool_listing import ToolListing

_log = structlog.get_logger(__name__)


class ServerToolList:
    """One connection's. `tools`: None before the first listing. `output_schemas`: by tool name."""

    def __init__(
        self,
        label: str,
        limits: PoolLimits,
        requests: PendingRequests,
        on_failure: Callable[[Exception], Exception],
    ) -> None:
        """`on_failure`: is given what made a listing fail, and returns the error to raise."""
        self.tools: Sequence[ServerTool] | None = None
        self.output_schemas: Mapping[str, Json] = {}
        self._label = label
        self._limits = limits
        self._requests = requests
        self._on_failure = on_failure
        self._refreshing: asyncio.Task[None] | None = None
        self._listing = ToolListing()  # in progress, or the last
        self._listed_at = 0.0
        self._changes = self._seen_changes = 0

    async def current(self, client: Client) -> Sequence[ServerTool]:
        """As last listed, or listed again if that is stale; concurrent callers share one listing."""
        if self._is_stale:
            await self._refreshed(client)
        assert self.tools is not None
        return self.tools

    async def sanitize(self, page: Json) -> None:
        """Rewrites a result of tools/list in place before the SDK reads it.

        In a thread: checking hundreds of schemas takes a second.
        """
        await asyncio.to_thread(self._listing.take, page, self._limits)

    async def on_message(self, message: object) -> None:
        """Servers of the handshake protocols announce changes unasked. A message handler of the SDK's client."""
        if isinstance(message, ToolListChangedNotification):
            self._changes += 1

    async def watch_changes(self, client: Client) -> None:
        """Servers of 2026-07-28 announce changes to those that listen. Runs until cancelled."""
        tools = client.server_capabilities.tools
        if client.session.discover_result is None or tools is None or not tools.list_changed:
            return
        with contextlib.suppress(Exception):  # changes that are missed show at the next periodic listing
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._changes += 1

    @property
    def _is_stale(self) -> bool:
        age = asyncio.get_running_loop().time() - self._listed_at
        return self.tools is None or self._changes != self._seen_changes or age > self._limits.refresh_seconds

    async def _refreshed(self, client: Client) -> None:
        """A cancelled caller does not cancel the listing: a late page of an abandoned one could otherwise arrive during
        the next, and be read as part of it.
        """
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(client))
            self._refreshing.add_done_callback(self._on_refreshed)
        await asyncio.shield(self._refreshing)

    def _on_refreshed(self, refreshing: asyncio.Task[None]) -> None:
        self._refreshing = None
        retrieve_exception(refreshing)

    async def _refresh(self, client: Client) -> None:
        try:
            await self._requests.run(PausableDeadline(self._limits.list_seconds), self._list(client))
        except Exception as error:
            raise self._on_failure(error) from None

    async def _list(self, client: Client) -> None:
        """Raises whatever the SDK does."""
        changes = self._changes
        self._listing = listing = ToolListing()
        await self._read_pages(client)
        self.tools = tuple(tool for name, tool in listing.tools.items() if name in listing.callable)
        self.output_schemas = listing.output_schemas
        self._listed_at, self._seen_changes = asyncio.get_running_loop().time(), changes
        if listing.left_out:
            _log.warning("mcp_tools_left_out", server=self._label, reasons=listing.left_out)

    async def _read_pages(self, client: Client) -> None:
        """Each page once, up to the limits: some servers' lists never end."""
        capabilities = client.server_capabilities
        if capabilities.tools is None and capabilities.model_fields_set:
            return  # it declares its capabilities, and tools are not among them
        cursor: str | None = None
        seen: set[str | None] = set()
        while cursor not in seen and len(seen) < self._limits.pages and len(self._listing.tools) < self._limits.tools:
            seen.add(cursor)
            cursor = await self._read_page(client, cursor)
            if cursor is None:
                return
        _log.warning("mcp_tools_cut", server=self._label, pages=len(seen), tools=len(self._listing.tools))

    async def _read_page(self, client: Client, cursor: str | None) -> str | None:
        """Returns the next page's cursor; None after the last page."""
        try:
            page = await client.list_tools(cursor=cursor)
        except MCPError as error:
            if error.code == METHOD_NOT_FOUND:
                return None  # it has no tools
            raise
        self._listing.callable.update(tool.name for tool in page.tools)
        return page.next_cursor
