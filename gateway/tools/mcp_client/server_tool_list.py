"""The tools of one server, as it last listed them."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND, ToolListChangedNotification

from gateway.core.hosted_tool import ServerTool
from gateway.tools.mcp_client.mcp_limits import PoolLimits
from gateway.tools.mcp_client.tool_listing import Listing

_log = structlog.get_logger(__name__)


class ToolCatalogue:
    """One connection's, which says when to list, and for how long. `tools`: None before the first list."""

    def __init__(self, label: str, limits: PoolLimits) -> None:
        self.tools: Sequence[ServerTool] | None = None
        self.outputs: Mapping[str, Any] = {}  # schemas of what tools answer, by name
        self._label = label
        self._limits = limits
        self._listing = Listing()  # the one under way, or the last
        self._listed = 0.0
        self._changes = self._seen_changes = 0

    @property
    def is_stale(self) -> bool:
        age = asyncio.get_running_loop().time() - self._listed
        return self.tools is None or self._changes != self._seen_changes or age > self._limits.refresh_seconds

    async def sift(self, page: dict[str, Any]) -> None:
        """Puts a page in order before the SDK sees it. In a thread: to check hundreds of schemas takes a second."""
        await asyncio.to_thread(self._listing.take, page, self._limits)

    async def on_message(self, message: object) -> None:
        """Older servers tell of changes unasked."""
        if isinstance(message, ToolListChangedNotification):
            self._changes += 1

    async def hear_of_changes(self, client: Client) -> None:
        """Newer ones tell only who listens."""
        tools = client.server_capabilities.tools
        if client.session.discover_result is None or tools is None or not tools.list_changed:
            return
        with contextlib.suppress(Exception):  # what is not heard of is listed anew after some minutes
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._changes += 1

    async def list(self, client: Client) -> None:
        """Raises whatever the SDK does."""
        changes = self._changes
        self._listing = listing = Listing()
        await self._read_pages(client)
        self.tools = tuple(tool for name, tool in listing.tools.items() if name in listing.callable)
        self.outputs = listing.outputs
        self._listed, self._seen_changes = asyncio.get_running_loop().time(), changes
        if listing.left_out:
            _log.warning("mcp_tools_left_out", server=self._label, reasons=listing.left_out)

    async def _read_pages(self, client: Client) -> None:
        """Every page once, and no more than there may be: some servers' lists have no end."""
        told = client.server_capabilities
        if told.tools is None and told.model_fields_set:
            return  # it says what it has, and has no tools
        cursor: str | None = None
        seen: set[str | None] = set()
        while cursor not in seen and len(seen) < self._limits.pages and len(self._listing.tools) < self._limits.tools:
            seen.add(cursor)
            cursor = await self._page(client, cursor)
            if cursor is None:
                return
        _log.warning("mcp_tools_cut", server=self._label, pages=len(seen), tools=len(self._listing.tools))

    async def _page(self, client: Client, cursor: str | None) -> str | None:
        """The next one's cursor, where there is one."""
        try:
            page = await client.list_tools(cursor=cursor)
        except MCPError as error:
            if error.code == METHOD_NOT_FOUND:
                return None  # it has other things to offer
            raise
        self._listing.callable.update(tool.name for tool in page.tools)
        return page.next_cursor
