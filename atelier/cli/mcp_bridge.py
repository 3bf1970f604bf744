"""`mcp` without a subcommand: the server's MCP on standard input and output, for programs that start MCP servers."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import mcp_types as types
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server as MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY, event_to_notification
from mcp_types.version import LATEST_MODERN_VERSION

from atelier import __version__
from atelier.cli.rest_client import CONNECT_SECONDS, Server

REPORT_SECONDS = 5.0  # timeout of a progress notification to a program that does not read

FORWARDED: dict[str, tuple[type[types.Request[Any, Any]], type[types.RequestParams], type[types.Result]]] = {
    "tools/list": (types.ListToolsRequest, types.PaginatedRequestParams, types.ListToolsResult),
    "tools/call": (types.CallToolRequest, types.CallToolRequestParams, types.CallToolResult),
    "resources/list": (types.ListResourcesRequest, types.PaginatedRequestParams, types.ListResourcesResult),
    "resources/templates/list": (
        types.ListResourceTemplatesRequest,
        types.PaginatedRequestParams,
        types.ListResourceTemplatesResult,
    ),
    "resources/read": (types.ReadResourceRequest, types.ReadResourceRequestParams, types.ReadResourceResult),
    "prompts/list": (types.ListPromptsRequest, types.PaginatedRequestParams, types.ListPromptsResult),
    "prompts/get": (types.GetPromptRequest, types.GetPromptRequestParams, types.GetPromptResult),
    "completion/complete": (types.CompleteRequest, types.CompleteRequestParams, types.CompleteResult),
}
"""Requests that are forwarded to the server. This process answers the rest of the protocol itself."""


def speak_mcp() -> None:
    """Serve MCP until standard input ends. Raises Failure when the server is not reachable or rejects the key."""
    with Server.from_environment() as server:
        server.get("/api/v1/status")  # fails with our messages rather than the SDK's
        url = server.url
    anyio.run(serve, url, os.environ.get("ATELIER_API_KEY"))


async def serve(url: str, key: str | None) -> None:
    """Serve MCP until standard input ends."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)  # a load or a long answer may take any time
    async with httpx2.AsyncClient(headers=headers, timeout=timeout, trust_env=False) as http:
        upstream = Upstream(url, http)
        server = bridge(upstream, await upstream.instructions())
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())


class Upstream:
    """The running server. Each request has a connection of its own, so that the server may restart in between."""

    def __init__(self, url: str, http: httpx2.AsyncClient) -> None:
        self._url = url
        self._http = http

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        """A client for one request; leaving the block cancels it. Raises MCPError when the server is not reachable."""
        transport = streamable_http_client(f"{self._url}/mcp", http_client=self._http, max_sse_event_size=None)
        try:
            async with Client(transport, mode=LATEST_MODERN_VERSION, cache=None) as client:
                yield client
        except ExceptionGroup as group:  # the transport's tasks wrap what they raise
            raise reported_error(group, self._url) from None

    async def instructions(self) -> str | None:
        async with self.connected() as client:
            return types.DiscoverResult.model_validate(
                await client.session.send_discover(LATEST_MODERN_VERSION)
            ).instructions

    async def ask(
        self, request: types.Request[Any, Any], result: type[types.Result], report: ProgressFnT | None
    ) -> types.Result:
        async with self.connected() as client:
            return await client.session.send_request(request, result, progress_callback=report)


def reported_error(group: ExceptionGroup[Exception], url: str) -> Exception:
    """The error that the program receives."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, httpx2.TransportError):
        return MCPError(types.INTERNAL_ERROR, f"No server at {url}: start one with: atelier serve")
    return error if isinstance(error, Exception) else group


def bridge(upstream: Upstream, instructions: str | None) -> MCPServer:
    """An MCP server that forwards requests and cancellations to `upstream`, and returns its results and progress."""
    server: MCPServer = MCPServer("lm-atelier", version=__version__, title="LM Atelier", instructions=instructions)

    def forward(method: str) -> None:
        request_type, params_type, result_type = FORWARDED[method]

        async def handle(ctx: ServerRequestContext, params: types.RequestParams) -> types.Result:
            # _meta is left out: it was addressed to this process, and the client of `upstream` writes its own.
            forwarded = params.model_dump(by_alias=True, exclude={"meta"}, exclude_none=True)
            request = request_type.model_validate({"params": forwarded})
            return await upstream.ask(request, result_type, reporter(ctx))

        server.add_request_handler(method, params_type, handle)

    async def listen(
        ctx: ServerRequestContext, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        return await relay_changes(upstream, ctx, params.notifications)

    for method in FORWARDED:
        forward(method)
    server.add_request_handler("subscriptions/listen", types.SubscriptionsListenRequestParams, listen)
    return server


def reporter(ctx: ServerRequestContext) -> ProgressFnT | None:
    """A function that forwards progress; None if the program did not request it."""
    if (ctx.meta or {}).get("progress_token") is None:
        return None

    async def report(progress: float, total: float | None, message: str | None) -> None:
        # Shielded: the result may follow at once, and its arrival cancels pending notifications.
        with anyio.move_on_after(REPORT_SECONDS, shield=True):
            await ctx.session.report_progress(progress, total, message)

    return report


async def relay_changes(
    upstream: Upstream, ctx: ServerRequestContext, wanted: types.SubscriptionFilter
) -> types.SubscriptionsListenResult:
    """Forward the server's change notifications until the subscription ends."""
    meta = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
    async with (
        upstream.connected() as client,
        client.listen(
            tools_list_changed=bool(wanted.tools_list_changed),
            prompts_list_changed=bool(wanted.prompts_list_changed),
            resources_list_changed=bool(wanted.resources_list_changed),
            resource_subscriptions=wanted.resource_subscriptions or (),
        ) as subscription,
    ):
        accepted = types.SubscriptionsAcknowledgedNotificationParams(notifications=subscription.honored, _meta=meta)
        await ctx.session.send_notification(
            types.SubscriptionsAcknowledgedNotification(params=accepted), related_request_id=ctx.request_id
        )
        async for event in subscription:
            await ctx.session.send_notification(event_to_notification(event, meta), related_request_id=ctx.request_id)
    return types.SubscriptionsListenResult(_meta=meta)
