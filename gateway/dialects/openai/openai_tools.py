"""Tools in OpenAI's two forms, the present one and the older functions, to the core's and back. Pure."""

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json
from atelier.submission import Tool, ToolCallPiece, ToolChoice, Tools
from gateway.core.events import ToolCall
from gateway.dialects.openai.mcp_tool import NamedMCPTool, server_entries
from gateway.dialects.openai.openai_requests import (
    AllowedToolsChoice,
    ChatBody,
    FunctionReference,
    FunctionToolEntry,
    NamedTool,
)
from gateway.dialects.tool_choice import allowed, function_tool, named, refuse_namesakes, require_some
from gateway.tools.loop.toolset import Toolset


def called_by_older_form(body: ChatBody) -> bool:
    """Whether the caller knows function_call, and no tool_calls."""
    return body.functions is not None and not body.tools


def uses_servers(body: ChatBody) -> bool:
    """Whether the model may call tools of MCP servers."""
    return bool(server_entries(body.tools))


def own_functions(body: ChatBody) -> list[Tool]:
    """Those that the caller runs."""
    entries = [(number, entry) for number, entry in enumerate(body.tools or []) if isinstance(entry, FunctionToolEntry)]
    tools = {number: function_tool(entry.function, f"tools[{number}].function") for number, entry in entries}
    refuse_namesakes(tools, "tools[{}].function.name")
    return list(tools.values())


def chat_tools(body: ChatBody, toolset: Toolset | None = None) -> Tools | None:
    """What the completion may call; None where it is to call nothing. `toolset`: of the MCP servers that it names."""
    if body.tools and body.functions:
        raise InvalidRequest("functions: tools are given already; leave one out", param="functions")
    if called_by_older_form(body):
        return older_tools(body)
    if toolset is None and uses_servers(body):
        raise UnsupportedField("tools: MCP servers are used in /v1/chat/completions, not here", param="tools")
    tools = own_functions(body) + (toolset.definitions() if toolset else [])
    one = body.parallel_tool_calls is False
    match body.tool_choice:
        case "none":
            return None
        case None | "auto":
            return Tools(tools, one_at_a_time=one) if tools else None
        case "required":
            require_some(tools)
            return Tools(tools, ToolChoice.REQUIRED, one_at_a_time=one)
        case NamedTool(function=function):
            return named(tools, function.name, "tool_choice.function.name", one_at_a_time=one)
        case NamedMCPTool(server_label=label, name=name):
            found = toolset.find(label, name) if toolset else None
            return named(tools, found.shown if found else name, "tool_choice.name", one_at_a_time=one)
        case AllowedToolsChoice(allowed_tools=choice):
            names = [entry.function.name for entry in choice.tools]
            path = "tool_choice.allowed_tools.tools[{}].function.name"
            return allowed(tools, names, choice.mode, path, one_at_a_time=one)


def older_tools(body: ChatBody) -> Tools | None:
    """A reply has one function_call at most."""
    tools = [function_tool(entry, f"functions[{i}]") for i, entry in enumerate(body.functions or [])]
    refuse_namesakes(dict(enumerate(tools)), "functions[{}].name")
    match body.function_call:
        case "none":
            return None
        case FunctionReference(name=name):
            return named(tools, name, "function_call.name", one_at_a_time=True)
    return Tools(tools, one_at_a_time=True) if tools else None


def tool_call_object(call: ToolCall) -> Json:
    return {"id": call.id, "type": "function", "function": function_call_object(call)}


def function_call_object(call: ToolCall) -> Json:
    return {"name": call.name, "arguments": call.arguments}


def tool_call_delta(piece: ToolCallPiece) -> Json:
    """The first piece of a call has its id and its name."""
    if not piece.id:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    return {"index": piece.index, "id": piece.id, "type": "function", "function": function_call_delta(piece)}


def function_call_delta(piece: ToolCallPiece) -> Json:
    named_first = {"name": piece.name} if piece.id else {}
    return {**named_first, "arguments": piece.arguments}
