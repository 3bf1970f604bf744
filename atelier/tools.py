"""Tools that a model may call, and how what it writes is read: as a request carries them to a worker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import orjson

from atelier.errors import InvalidRequest
from protos import inference_pb2 as pb


class ToolChoice(Enum):
    """Whether the completion calls tools. The values are the wire's."""

    AUTO = pb.Tools.AUTO
    REQUIRED = pb.Tools.REQUIRED  # at least one, of whichever tool
    NAMED = pb.Tools.NAMED  # the one that is named


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the caller runs. `parameters`: JSON Schema of its arguments, an object."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool = False  # a keyword of the schema that cannot be enforced is an error


@dataclass(frozen=True, slots=True)
class Tools:
    """Those of one request. Who wants none called leaves them out."""

    tools: Sequence[Tool]
    choice: ToolChoice = ToolChoice.AUTO
    name: str = ""  # of the tool that is to be called, with NAMED
    one_at_a_time: bool = False  # one call in a completion at most

    @property
    def callable(self) -> Sequence[Tool]:
        """Those that the completion may call."""
        if self.choice is ToolChoice.NAMED:
            return [tool for tool in self.tools if tool.name == self.name]
        return self.tools


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """How reasoning and tool calls are told from the rest of a chat's completion."""

    tool_calls: str = "auto"  # a format's name; "auto": as the chat template says
    reasoning_start: str | None = None  # None: as the chat template says
    reasoning_end: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """A part of a tool call, in the order in which it is written."""

    index: int  # of the call in its completion, from 0
    id: str = ""  # in the first piece only, like the name
    name: str = ""
    arguments: str = ""  # a piece of the JSON text


def definition(tool: Tool) -> dict[str, Any]:
    """As chat templates take it."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def with_arguments_read(call: Any) -> Any:
    """A message's tool call with the object that its arguments are the JSON text of; others stay as they are."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = orjson.loads(function["arguments"] or "{}")
    except orjson.JSONDecodeError:
        return call
    if not isinstance(arguments, dict):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def set_tools(chat: pb.Chat, tools: Tools | None) -> None:
    """InvalidRequest when a schema cannot be written as JSON."""
    if tools is None or not tools.tools:
        return
    for tool in tools.tools:
        try:
            parameters = orjson.dumps(tool.parameters)
        except TypeError as error:  # a number of more than 64 bits
            raise InvalidRequest(f"tools: {tool.name[:64]}: {error}", param="tools") from None
        chat.tools.tools.add(
            name=tool.name, description=tool.description, parameters_json=parameters, strict=tool.strict
        )
    chat.tools.choice = pb.Tools.Choice.ValueType(tools.choice.value)
    chat.tools.name = tools.name
    chat.tools.one_at_a_time = tools.one_at_a_time


def read_tools(chat: pb.Chat) -> Tools | None:
    """InvalidRequest when a schema is no object, or a tool is named that is not there."""
    if not chat.tools.tools:
        return None
    tools = [_read_tool(tool) for tool in chat.tools.tools]
    read = Tools(tools, ToolChoice(chat.tools.choice), chat.tools.name, chat.tools.one_at_a_time)
    if not read.callable:
        raise InvalidRequest(f'tool_choice: there is no tool "{read.name[:64]}".', param="tool_choice")
    return read


def _read_tool(tool: pb.Tool) -> Tool:
    try:
        parameters = orjson.loads(tool.parameters_json)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"tools: {tool.name[:64]}: {error}", param="tools") from None
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"tools: the parameters of {tool.name[:64]} must be an object.", param="tools")
    return Tool(tool.name, tool.description, parameters, tool.strict)


def set_output_format(chat: pb.Chat, output: OutputFormat) -> None:
    chat.output.tool_calls = output.tool_calls
    for name in ("reasoning_start", "reasoning_end"):
        if (mark := getattr(output, name)) is not None:
            setattr(chat.output, name, mark)


def read_output_format(chat: pb.Chat) -> OutputFormat:
    output = chat.output
    return OutputFormat(
        output.tool_calls or "auto",
        output.reasoning_start if output.HasField("reasoning_start") else None,
        output.reasoning_end if output.HasField("reasoning_end") else None,
    )
