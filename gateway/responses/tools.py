"""The functions that a response may call, to the core's terms and back. Pure."""

from typing import Any

import orjson

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.tools import Tool, ToolChoice, Tools
from gateway.responses.schema import (
    AllowedFunctions,
    FunctionTool,
    NamedFunction,
    OtherTool,
    ResponseBody,
    ToolEntry,
)
from gateway.tool_choice import allowed, function_tool, named, refuse_namesakes, require_some

Json = dict[str, Any]


def response_tools(body: ResponseBody) -> Tools | None:
    """None where nothing is to be called. InvalidRequest, UnsupportedField name the tool at fault."""
    tools = [_tool(entry, f"tools[{number}]") for number, entry in enumerate(body.tools or [])]
    refuse_namesakes(dict(enumerate(tools)), "tools[{}].name")
    one = body.parallel_tool_calls is False
    match body.tool_choice:
        case "none":
            return None
        case None | "auto":
            return Tools(tools, one_at_a_time=one) if tools else None
        case "required":
            require_some(tools)
            return Tools(tools, ToolChoice.REQUIRED, one_at_a_time=one)
        case NamedFunction(name=name):
            return named(tools, name, "tool_choice.name", one_at_a_time=one)
        case AllowedFunctions() as choice:
            names = [entry.name or "" for entry in choice.tools]
            return allowed(tools, names, choice.mode, "tool_choice.tools[{}].name", one_at_a_time=one)
    raise UnsupportedField(
        f'tool_choice.type: "{body.tool_choice.type[:40]}" is not supported', param="tool_choice.type"
    )


def _tool(entry: ToolEntry, path: str) -> Tool:
    if isinstance(entry, OtherTool):
        raise UnsupportedField(
            f'{path}.type: tools of type "{entry.type[:40]}" are not supported; functions are',
            param=f"{path}.type",
        )
    tool = function_tool(entry, path)
    told_again(entry.parameters or {}, f"{path}.parameters")
    return tool


def told_again(schema: Json, path: str) -> Json:
    """The schema; InvalidRequest when the response could not repeat it: a number of more than 64 bits."""
    try:
        orjson.dumps(schema)
    except TypeError as error:
        raise InvalidRequest(f"{path}: {error}", param=path) from None
    return schema


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
