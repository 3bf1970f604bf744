"""The functions that a response may call, to the core's terms and back. Pure."""

from collections.abc import Sequence
from typing import Any

import orjson

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.tools import Tool, ToolChoice, Tools
from gateway.responses.schema import (
    AllowedTools,
    FunctionTool,
    NamedFunction,
    OtherTool,
    ResponseBody,
    ToolEntry,
)

Json = dict[str, Any]


def response_tools(body: ResponseBody) -> Tools | None:
    """None where nothing is to be called. InvalidRequest, UnsupportedField name the tool at fault."""
    tools = [_tool(entry, f"tools[{number}]") for number, entry in enumerate(body.tools or [])]
    _refuse_namesakes(tools)
    one = body.parallel_tool_calls is False
    match body.tool_choice:
        case "none":
            return None
        case None | "auto":
            return Tools(tools, one_at_a_time=one) if tools else None
        case "required":
            if not tools:
                raise InvalidRequest("tool_choice: there are no tools to call", param="tool_choice")
            return Tools(tools, ToolChoice.REQUIRED, one_at_a_time=one)
        case NamedFunction(name=name):
            _require(tools, name, "tool_choice.name")
            return Tools(tools, ToolChoice.NAMED, name, one)
        case AllowedTools() as choice:
            return _allowed(tools, choice, one_at_a_time=one)
    raise UnsupportedField(
        f'tool_choice.type: "{body.tool_choice.type[:40]}" is not supported', param="tool_choice.type"
    )


def _tool(entry: ToolEntry, path: str) -> Tool:
    if isinstance(entry, OtherTool):
        raise UnsupportedField(
            f'{path}.type: tools of type "{entry.type[:40]}" are not supported; functions are',
            param=f"{path}.type",
        )
    more: Json = {}
    if entry.parameters:
        if entry.parameters.get("type", "object") != "object":
            raise InvalidRequest(f'{path}.parameters.type: must be "object"', param=f"{path}.parameters.type")
        more["parameters"] = told_again(entry.parameters, f"{path}.parameters")
    return Tool(entry.name, entry.description or "", strict=bool(entry.strict), **more)


def told_again(schema: Json, path: str) -> Json:
    """The schema; InvalidRequest when the response could not repeat it: a number of more than 64 bits."""
    try:
        orjson.dumps(schema)
    except TypeError as error:
        raise InvalidRequest(f"{path}: {error}", param=path) from None
    return schema


def _refuse_namesakes(tools: Sequence[Tool]) -> None:
    """A call could mean either."""
    seen: set[str] = set()
    for number, tool in enumerate(tools):
        if tool.name in seen:
            raise InvalidRequest(
                f'tools[{number}].name: there is a "{tool.name}" already', param=f"tools[{number}].name"
            )
        seen.add(tool.name)


def _require(tools: Sequence[Tool], name: str | None, path: str) -> None:
    if all(tool.name != name for tool in tools):
        raise InvalidRequest(f'{path}: there is no tool "{(name or "")[:64]}"', param=path)


def _allowed(tools: Sequence[Tool], choice: AllowedTools, *, one_at_a_time: bool) -> Tools:
    """The others are not shown to the model either."""
    for number, entry in enumerate(choice.tools):
        _require(tools, entry.name, f"tool_choice.tools[{number}].name")
    names = {entry.name for entry in choice.tools}
    kind = ToolChoice.REQUIRED if choice.mode == "required" else ToolChoice.AUTO
    return Tools([tool for tool in tools if tool.name in names], kind, one_at_a_time=one_at_a_time)


def tool_objects(body: ResponseBody) -> list[Json]:
    """As they are told in the response."""
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
            "strict": bool(tool.strict),
        }
        for tool in body.tools or []
        if isinstance(tool, FunctionTool)
    ]


def choice_object(body: ResponseBody) -> str | Json:
    match body.tool_choice:
        case None:
            return "auto"
        case str(word):
            return word
        case choice:
            told: Json = choice.model_dump(exclude_none=True)
            return told
