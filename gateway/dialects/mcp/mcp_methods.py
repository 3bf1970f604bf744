"""The MCP server's methods. The SDK does the rest of the protocol."""

import json
from collections.abc import Mapping

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError
from starlette.requests import Request

from atelier import __version__
from gateway.dialects.body import parse
from gateway.dialects.mcp import mcp_prompts as prompts
from gateway.dialects.mcp.mcp_cancellation import Cancellations
from gateway.dialects.mcp.mcp_errors import public_error, translate_errors
from gateway.dialects.mcp.mcp_resources import TEMPLATES, Resources
from gateway.dialects.mcp.tool_definition import Caller, ToolServices
from gateway.dialects.mcp.tool_table import BY_NAME, tool_entries
from gateway.dialects.reply import account_of, origin_of

INSTRUCTIONS = (
    "Language models that run on this server. list_models returns them; chat and complete load a model "
    "if it is not loaded. Presets are prompts here, and may be named in a call."
)
MOST_COMPLETIONS = 100  # the protocol's limit


class MCPMethods:
    """Each method handles one of the protocol's. The SDK requires their signatures."""

    def __init__(self, services: ToolServices, resources: Resources) -> None:
        self._services = services
        self._resources = resources

    async def list_tools(self, ctx: ServerRequestContext, params: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[*tool_entries().values()])

    async def call_tool(self, ctx: ServerRequestContext, params: types.CallToolRequestParams) -> types.CallToolResult:
        """Errors are results, so that the calling model can read them; an unknown tool is a JSON-RPC error."""
        tool = BY_NAME.get(params.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, f'Unknown tool: "{params.name[:100]}". tools/list returns all tools.')
        caller = caller_of(ctx)
        try:
            arguments = parse(json.dumps(params.arguments or {}).encode(), tool.input)
            return tool_result(await tool.run(self._services, caller, arguments), tool.text_field)
        except Exception as error:
            public = public_error(error)
            caller.account.error = public.code
            return types.CallToolResult(content=[types.TextContent(text=public.message)], is_error=True)

    async def list_resources(self, ctx: ServerRequestContext, params: object) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=await self._resources.listed())

    async def list_resource_templates(
        self, ctx: ServerRequestContext, params: object
    ) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(resource_templates=self._resources.templates())

    async def read_resource(
        self, ctx: ServerRequestContext, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        return types.ReadResourceResult(contents=[await self._resources.read(str(params.uri))])

    async def list_prompts(self, ctx: ServerRequestContext, params: object) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=prompts.listed(self._services.watcher.known()))

    async def get_prompt(
        self, ctx: ServerRequestContext, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        text = (params.arguments or {}).get(prompts.TEXT)
        return prompts.filled(self._services.watcher.known(), params.name, text)

    async def complete(self, ctx: ServerRequestContext, params: types.CompleteRequestParams) -> types.CompleteResult:
        """Completes the names in resource URIs. A prompt's text is the user's own and has no completions."""
        kind = _template_kind(params.ref)
        names = await self._resources.names(kind) if kind is not None else []
        matches = matching(params.argument.value, names)
        shown = matches[:MOST_COMPLETIONS]
        return types.CompleteResult(
            completion=types.Completion(values=shown, total=len(matches), has_more=len(matches) > len(shown))
        )


def create_server(methods: MCPMethods, listen: ListenHandler) -> Server:
    server: Server = Server(
        "lm-atelier",
        version=__version__,
        title="LM Atelier",
        instructions=INSTRUCTIONS,
        get_tool_input_schema=_input_schema,
        on_list_tools=methods.list_tools,
        on_call_tool=methods.call_tool,
        on_list_resources=methods.list_resources,
        on_list_resource_templates=methods.list_resource_templates,
        on_read_resource=methods.read_resource,
        on_list_prompts=methods.list_prompts,
        on_get_prompt=methods.get_prompt,
        on_completion=methods.complete,
        on_subscriptions_listen=listen,
    )
    server.middleware += [translate_errors, Cancellations()]
    return server


def _input_schema(tool: str) -> Mapping[str, object] | None:
    entry = tool_entries().get(tool)
    return entry.input_schema if entry else None


def _template_kind(ref: types.PromptReference | types.ResourceTemplateReference) -> str | None:
    if isinstance(ref, types.PromptReference):
        return None
    return next((kind for kind, template in TEMPLATES.items() if str(template) == ref.uri), None)


def caller_of(ctx: ServerRequestContext) -> Caller:
    request = ctx.request
    assert isinstance(request, Request)  # the only transport is HTTP
    wants_progress = (ctx.meta or {}).get("progress_token") is not None
    return Caller(origin_of(request), account_of(request), ctx.session.report_progress, wants_progress)


def tool_result(output: Mapping[str, object], text_field: str | None) -> types.CallToolResult:
    """Structured, and as text for clients that read only text: one field, or the whole as JSON."""
    text = json.dumps(output, ensure_ascii=False) if text_field is None else str(output[text_field])
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=dict(output))


def matching(prefix: str, names: list[str]) -> list[str]:
    """Names with this prefix first, then those that contain it: users often omit a model key's publisher."""
    wanted = prefix.lower()
    matches = [name for name in names if wanted in name.lower()]
    return sorted(matches, key=lambda name: not name.lower().startswith(wanted))
