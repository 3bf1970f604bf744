"""The integrations of LM Studio's v1 chat, which are MCP servers, and how their tools are told of. Pure."""

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json
from atelier.submission import ToolChoice, Tools
from gateway.core.hosted_tool import HostedTool
from gateway.core.mcp_server import Endpoint
from gateway.dialects.lmstudio.lmstudio_requests import EphemeralMCP, Integration, PluginIntegration, V1ChatBody
from gateway.tools.loop.server_selection import RequestedServer
from gateway.tools.loop.toolset import Toolset

MCP = "mcp/"  # what the ids of servers from mcp.json begin with


def integration_wishes(body: V1ChatBody) -> list[RequestedServer]:
    return [_wish(entry, f"integrations[{number}]") for number, entry in enumerate(body.integrations or [])]


def _wish(entry: Integration, path: str) -> RequestedServer:
    match entry:
        case str(id):
            return RequestedServer(label=_label(id, path), path=path, label_name="")
        case PluginIntegration(id=id, allowed_tools=allowed):
            label = _label(id, f"{path}.id")
            return RequestedServer(label=label, path=path, allowed=_names(allowed), label_name="id")
        case EphemeralMCP(server_label=label, server_url=url, headers=headers, allowed_tools=allowed):
            return RequestedServer(label=label, path=path, url=url, headers=headers, allowed=_names(allowed))


def _label(id: str, path: str) -> str:
    if not id.startswith(MCP):
        raise UnsupportedField(
            f'{path}: there are no plugins here but "{MCP}<label>", the servers of mcp.json', param=path
        )
    return id.removeprefix(MCP)


def _names(allowed: list[str] | None) -> frozenset[str] | None:
    return None if allowed is None else frozenset(allowed)


def chat_tools(body: V1ChatBody, toolset: Toolset) -> Tools | None:
    """What the model may call, or must."""
    tools = toolset.definitions()
    if body.tool_choice == "none" or not tools:
        if body.tool_choice == "required":
            raise InvalidRequest("tool_choice: there are no tools to call", param="tool_choice")
        return None
    return Tools(tools, ToolChoice.REQUIRED if body.tool_choice == "required" else ToolChoice.AUTO)


def provider_info(tool: HostedTool) -> Json:
    reach = tool.use.server.reach
    if isinstance(reach, Endpoint) and reach.public_only:
        return {"type": "ephemeral_mcp", "server_label": tool.label}
    return {"type": "plugin", "plugin_id": f"{MCP}{tool.label}"}
