"""Which tools the model may call, and the rules for this that all dialects share. Pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from atelier.errors import InvalidRequest
from atelier.json_types import Json
from atelier.submission import Tool, ToolChoice, Tools

LONGEST_QUOTED = 128  # characters of a name in an errorfrom atelier.json_types import Json


class Function(Protocol):
    """A function as OpenAI's dialects describe it."""

    name: str
    description: str | None
    parameters: Json | None
    strict: bool | None


def function_tool(function: Function, path: str) -> Tool:
    """Raises InvalidRequest if the parameters do not describe an object."""
    name, description, strict = function.name, function.description or "", bool(function.strict)
    if not function.parameters:
        return Tool(name, description, strict=strict)
    if function.parameters.get("type", "object") != "object":
        raise InvalidRequest(f'{path}.parameters.type: must be "object"', param=f"{path}.parameters.type")
    return Tool(name, description, function.parameters, strict=strict)


def reject_namesakes(tools: Mapping[int, Tool], path: str) -> None:
    """Raises InvalidRequest for two tools of one name.

    `tools`: by their number in the request. `path`: of a name, with {} for the number.
    """
    seen: set[str] = set()
    for number, each in tools.items():
        if each.name in seen:
            param = path.format(number)
            raise InvalidRequest(f'{param}: "{each.name[:LONGEST_QUOTED]}" is the name of an earlier tool', param=param)
        seen.add(each.name)


def require_some(tools: Sequence[Tool]) -> None:
    if not tools:
        raise InvalidRequest("tool_choice: there are no tools to call", param="tool_choice")


def chosen_by_word(word: str | None, tools: Sequence[Tool], *, one_at_a_time: bool) -> Tools | None:
    """For none, auto (the default) and required. Raises InvalidRequest if a call is required without any tools."""
    if word == "required":
        require_some(tools)
        return Tools(tools, ToolChoice.REQUIRED, one_at_a_time=one_at_a_time)
    return Tools(tools, one_at_a_time=one_at_a_time) if tools and word != "none" else None


def require_tool(tools: Sequence[Tool], name: str, param: str) -> None:
    if all(each.name != name for each in tools):
        raise InvalidRequest(f'{param}: there is no tool "{name[:64]}"', param=param)


def named(tools: Sequence[Tool], name: str, param: str, *, one_at_a_time: bool) -> Tools:
    """The model must call this tool. Raises InvalidRequest if there is no such tool."""
    require_tool(tools, name, param)
    return Tools(tools, ToolChoice.NAMED, name, one_at_a_time)


def allowed(tools: Sequence[Tool], names: Sequence[str], mode: str, path: str, *, one_at_a_time: bool) -> Tools:
    """Only the named tools may be called. `path`: of a name, with {} for its number. Raises InvalidRequest."""
    for number, name in enumerate(names):
        require_tool(tools, name, path.format(number))
    return some_of(tools, names, mode, one_at_a_time=one_at_a_time)


def some_of(tools: Sequence[Tool], names: Collection[str], mode: str, *, one_at_a_time: bool) -> Tools:
    """Only the named tools may be called; the model is not shown the others."""
    kind = ToolChoice.REQUIRED if mode == "required" else ToolChoice.AUTO
    return Tools([each for each in tools if each.name in names], kind, one_at_a_time=one_at_a_time)
