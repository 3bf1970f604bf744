"""The MCP server: what its methods answer. Everything else of the protocol is the SDK's."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import mcp_types as types
import structlog
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from atelier import __version__
from atelier.errors import AtelierError, NotFound
from gateway.dialects.body import parse
from gateway.dialects.mcp import mcp_prompts as prompts
from gateway.dialects.mcp.mcp_cancellation import Cancellations
from gateway.dialects.mcp.mcp_errors import code_of
from gateway.dialects.mcp.mcp_resources import Resources
from gateway.dialects.mcp.resource_uris import TEMPLATES
from gateway.dialects.mcp.tool_definition import Caller, Core
from gateway.dialects.mcp.tool_outputs import Generated
from gateway.dialects.mcp.tool_table import BY_NAME, tool_entries
from gateway.dialects.reply import account_of, origin_of

INSTRUCTIONS = (
    "Language models that run on this server. list_models tells which there are; chat and complete load a model "
    "where need be. Presets are prompts here, and may be named in a call."
)
HANDLER = "atelier.mcp_handler"  # in the HTTP request's scope: the task that answers it
MOST_COMPLETIONS = 100  # the protocol's own limit

_log = structlog.get_logger(__name__)


def input_schema(tool: str) -> Mapping[str, Any] | None:
    entry = tool_entries().get(tool)
    return entry.input_schema if entry else None


class Handlers:
    """One method of the protocol each."""

    def __init__(self, core: Core, resources: Resources) -> None:
        self._core = core
        self._resources = resources

    async def list_tools(self, ctx: ServerRequestContext, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[*tool_entries().values()])

    async def call_tool(self, ctx: ServerRequestContext, params: types.CallToolRequestParams) -> types.CallToolResult:
        """Errors are results, for the model that called to read; but a tool that does not exist is the protocol's."""
        tool = BY_NAME.get(params.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, f'Unknown tool: "{params.name[:100]}". tools/list has them all.')
        caller = caller_of(ctx)
        try:
            asked = parse(json.dumps(params.arguments or {}).encode(), tool.input)
            return good(await tool.run(self._core, caller, asked))
        except Exception as error:
            told = as_told(error)
            caller.account.error = told.code
            return types.CallToolResult(content=[types.TextContent(text=told.message)], is_error=True)

    async def list_resources(self, ctx: ServerRequestContext, params: Any) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=await self._resources.listed())

    async def list_resource_templates(
        self, ctx: ServerRequestContext, params: Any
    ) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(resource_templates=list(self._resources.templates()))

    async def read_resource(
        self, ctx: ServerRequestContext, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        return types.ReadResourceResult(contents=[await self._resources.read(str(params.uri))])

    async def list_prompts(self, ctx: ServerRequestContext, params: Any) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=prompts.listed(self._core.watcher.known()))

    async def get_prompt(
        self, ctx: ServerRequestContext, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        text = (params.arguments or {}).get(prompts.TEXT)
        return prompts.filled(self._core.watcher.known(), params.name, text)

    async def complete(self, ctx: ServerRequestContext, params: types.CompleteRequestParams) -> types.CompleteResult:
        """Names of what a template is for; a prompt's text is the user's own."""
        kind = kind_of_template(params.ref)
        names = await self._resources.names(kind) if kind is not None else []
        found = matching(params.argument.value, names)
        shown = found[:MOST_COMPLETIONS]
        return types.CompleteResult(
            completion=types.Completion(values=shown, total=len(found), has_more=len(found) > len(shown))
        )


def create_server(handlers: Handlers, listen: ListenHandler) -> Server:
    server: Server = Server(
        "lm-atelier",
        version=__version__,
        title="LM Atelier",
        instructions=INSTRUCTIONS,
        get_tool_input_schema=input_schema,
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
        on_list_resources=handlers.list_resources,
        on_list_resource_templates=handlers.list_resource_templates,
        on_read_resource=handlers.read_resource,
        on_list_prompts=handlers.list_prompts,
        on_get_prompt=handlers.get_prompt,
        on_completion=handlers.complete,
        on_subscriptions_listen=listen,
    )
    server.middleware += [tell_errors, Cancellations()]
    return server


def kind_of_template(ref: types.PromptReference | types.ResourceTemplateReference) -> str | None:
    if isinstance(ref, types.PromptReference):
        return None
    return next((kind for kind, template in TEMPLATES.items() if str(template) == ref.uri), None)


def caller_of(ctx: ServerRequestContext) -> Caller:
    request = ctx.request
    assert isinstance(request, Request)  # it came over HTTP
    wants_progress = (ctx.meta or {}).get("progress_token") is not None
    return Caller(origin_of(request), account_of(request), ctx.session.report_progress, wants_progress)


def good(output: BaseModel | Mapping[str, object]) -> types.CallToolResult:
    """Structured, and as text for those that read only that: what was generated as it is, all else as JSON."""
    structured = output.model_dump(mode="json") if isinstance(output, BaseModel) else dict(output)
    text = output.text if isinstance(output, Generated) else json.dumps(structured, ensure_ascii=False)
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=structured)


def matching(begun: str, names: list[str]) -> list[str]:
    """Those that begin so first, then those that have it anywhere: a key is often known without its publisher."""
    wanted = begun.lower()
    found = [name for name in names if wanted in name.lower()]
    return sorted(found, key=lambda name: not name.lower().startswith(wanted))


def as_told(error: Exception) -> AtelierError:
    """The error in our words; what was not foreseen goes to the log alone."""
    if isinstance(error, AtelierError):
        return error
    _log.error("mcp_request_failed", exc_info=error)
    return AtelierError()


async def tell_errors(ctx: ServerRequestContext, call_next: CallNext) -> HandlerResult:
    """A layer of the server's: nothing but our own words and the protocol's faults gets out."""
    if ctx.request is not None and ctx.request_id is not None:
        ctx.request.scope[HANDLER] = asyncio.current_task()
    try:
        return await call_next(ctx)
    except (MCPError, ValidationError):  # of the request: the SDK tells which
        raise
    except Exception as error:
        told = as_told(error)
        if ctx.request is not None:
            account_of(ctx.request).error = told.code
        code = types.INVALID_PARAMS if isinstance(told, NotFound) else code_of(told)
        data = {"code": told.code}
        if ctx.method == "resources/read":
            data["uri"] = str((ctx.params or {}).get("uri"))  # so the protocol has it
        raise MCPError(code, told.message, data) from None
