"""The request of LM Studio's v1 chat as the core's call, and its integrations, which are MCP servers. Pure."""

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json
from atelier.prompt_end import end_after
from atelier.settings import TABLE
from atelier.submission import ToolChoice, Tools
from gateway.core.call import Call, Chat
from gateway.dialects.lmstudio.lmstudio_requests import (
    MCP_PREFIX,
    EphemeralMCP,
    Integration,
    PluginIntegration,
    V1ChatBody,
)
from gateway.dialects.requested_reasoning import budget_setting
from gateway.tools.loop.server_selection import RequestedServer
from gateway.tools.loop.toolset import Toolset

SETTINGS = {row.facts.lmstudio: row.name for row in TABLE["inference"].values() if row.facts.lmstudio}


def v1_chat_call(body: V1ChatBody, messages: list[Json], tools: Tools | None = None) -> Call:
    values = {setting: getattr(body, field) for field, setting in SETTINGS.items()}
    values |= budget_setting(body.reasoning_budget, 0 if body.reasoning == "off" else None)
    return Call(
        model=body.model,
        prompts=[Chat.of(messages)],
        prompt_end=end_after(messages, "input"),
        tools=tools,
        template_arguments=reasoning_arguments(body.reasoning),
        settings={name: value for name, value in values.items() if value is not None},
        prompt_progress=bool(body.stream),
        draft_model=body.draft_model,
        preset=body.preset,
        ttl=body.ttl,
        load={} if body.context_length is None else {"context_length": body.context_length},
    )


def reasoning_arguments(reasoning: str | None) -> Json:
    """Some chat templates read whether to reason, others how much."""
    match reasoning:
        case None:
            return {}
        case "off":
            return {"enable_thinking": False}
        case "on":
            return {"enable_thinking": True}
        case effort:
            return {"enable_thinking": True, "reasoning_effort": effort}


def requested_servers(body: V1ChatBody) -> list[RequestedServer]:
    """Raises UnsupportedField for a plugin that is not an MCP server."""
    return [_requested_server(entry, f"integrations[{i}]") for i, entry in enumerate(body.integrations or [])]


def _requested_server(entry: Integration, path: str) -> RequestedServer:
    match entry:
        case str(id):
            return RequestedServer(label=_label(id, path), path=path, label_name="")
        case PluginIntegration(id=id, allowed_tools=allowed):
            label = _label(id, f"{path}.id")
            return RequestedServer(label=label, path=path, allowed=_names(allowed), label_name="id")
        case EphemeralMCP(server_label=label, server_url=url, headers=headers, allowed_tools=allowed):
            return RequestedServer(label=label, path=path, url=url, headers=headers, allowed=_names(allowed))


def _label(id: str, path: str) -> str:
    if not id.startswith(MCP_PREFIX):
        raise UnsupportedField(
            f'{path}: the only supported plugins are "{MCP_PREFIX}<label>", the servers in mcp.json', param=path
        )
    return id.removeprefix(MCP_PREFIX)


def _names(allowed: list[str] | None) -> frozenset[str] | None:
    return None if allowed is None else frozenset(allowed)


def chat_tools(body: V1ChatBody, toolset: Toolset) -> Tools | None:
    """The tools that the model may or must call. Raises InvalidRequest."""
    tools = toolset.definitions()
    if body.tool_choice == "none" or not tools:
        if body.tool_choice == "required":
            raise InvalidRequest("tool_choice: there are no tools to call", param="tool_choice")
        return None
    return Tools(tools, ToolChoice.REQUIRED if body.tool_choice == "required" else ToolChoice.AUTO)
