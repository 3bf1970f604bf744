"""Tools in OpenAI's two forms, the present one and the older functions, to the core's and back. Pure."""

from collections.abc import Sequence
from typing import Any

from atelier.errors import InvalidRequest
from atelier.tools import Tool, ToolCallPiece, ToolChoice, Tools
from gateway.events import ToolCall
from gateway.openai.schema import (
    AllowedToolsChoice,
    CalledFunction,
    ChatBody,
    FunctionEntry,
    FunctionReference,
    NamedTool,
    ToolCallEntry,
)

Json = dict[str, Any]


def called_by_older_form(body: ChatBody) -> bool:
    """Whether the caller knows function_call, and no tool_calls."""
    return body.functions is not None and not body.tools


def chat_tools(body: ChatBody) -> Tools | None:
    """What the completion may call; None where it is to call nothing."""
    if body.tools and body.functions:
        raise InvalidRequest("functions: tools are given already; leave one out", param="functions")
    if called_by_older_form(body):
        return older_tools(body)
    tools = [tool(entry.function, f"tools[{i}].function") for i, entry in enumerate(body.tools or [])]
    refuse_namesakes(tools, "tools[{}].function.name")
    one = body.parallel_tool_calls is False
    match body.tool_choice:
        case "none":
            return None
        case None | "auto":
            return Tools(tools, one_at_a_time=one) if tools else None
        case "required":
            return Tools(some(tools, "tool_choice"), ToolChoice.REQUIRED, one_at_a_time=one)
        case NamedTool(function=function):
            return named(tools, function.name, "tool_choice.function.name", one_at_a_time=one)
        case AllowedToolsChoice() as choice:
            return allowed(tools, choice, one_at_a_time=one)


def older_tools(body: ChatBody) -> Tools | None:
    """A reply has one function_call at most."""
    tools = [tool(entry, f"functions[{i}]") for i, entry in enumerate(body.functions or [])]
    refuse_namesakes(tools, "functions[{}].name")
    match body.function_call:
        case "none":
            return None
        case FunctionReference(name=name):
            return named(tools, name, "function_call.name", one_at_a_time=True)
    return Tools(tools, one_at_a_time=True) if tools else None


def tool(entry: FunctionEntry, path: str) -> Tool:
    """InvalidRequest when the parameters describe something else than an object."""
    more: Json = {}
    if entry.parameters:
        if entry.parameters.get("type", "object") != "object":
            raise InvalidRequest(f'{path}.parameters.type: must be "object"', param=f"{path}.parameters.type")
        more["parameters"] = entry.parameters
    return Tool(entry.name, entry.description or "", strict=bool(entry.strict), **more)


def refuse_namesakes(tools: Sequence[Tool], path: str) -> None:
    """A call could mean either."""
    seen: set[str] = set()
    for number, each in enumerate(tools):
        if each.name in seen:
            param = path.format(number)
            raise InvalidRequest(f'{param}: there is a "{each.name}" already', param=param)
        seen.add(each.name)


def some(tools: Sequence[Tool], param: str) -> Sequence[Tool]:
    if not tools:
        raise InvalidRequest(f"{param}: there are no tools to call", param=param)
    return tools


def named(tools: Sequence[Tool], name: str, param: str, *, one_at_a_time: bool) -> Tools:
    if all(each.name != name for each in tools):
        raise InvalidRequest(f'{param}: there is no tool "{name[:64]}"', param=param)
    return Tools(tools, ToolChoice.NAMED, name, one_at_a_time)


def allowed(tools: Sequence[Tool], choice: AllowedToolsChoice, *, one_at_a_time: bool) -> Tools:
    """The others are not shown to the model either."""
    path = "tool_choice.allowed_tools.tools"
    names = [entry.function.name for entry in choice.allowed_tools.tools]
    for number, name in enumerate(names):
        named(tools, name, f"{path}[{number}].function.name", one_at_a_time=one_at_a_time)
    kind = ToolChoice.REQUIRED if choice.allowed_tools.mode == "required" else ToolChoice.AUTO
    return Tools([each for each in tools if each.name in names], kind, one_at_a_time=one_at_a_time)


def history_call(entry: ToolCallEntry) -> Json:
    """A call of an earlier turn, as chat templates take it."""
    call = {"type": "function", "function": history_function(entry.function)}
    return call if entry.id is None else {"id": entry.id, **call}


def history_function(called: CalledFunction) -> Json:
    return {"name": called.name, "arguments": called.arguments}


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
