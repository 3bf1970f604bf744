"""What a request carries to its worker besides the prompt and the sampling settings, and its fields in Submit.

All of it is optional: a field that is not set means the default.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import orjson

from atelier.errors import InvalidRequest
from atelier.json_types import Json, json_bytes
from atelier.lora_adapters import MOST_ADAPTERS, AdapterScale
from protos import inference_pb2 as pb

MOST_CHOICES = 8  # completions of one prompt
MOST_LOGPROBS = 20  # alternatives reported for each token
MOST_PRIORITY = 10  # absolute value; a lower number is served first
LONGEST_TIMEOUT = 86_400.0  # seconds
MOST_KEYWORDS = 16  # unenforced keywords of a schema that are reported
KEYWORD = r"[$A-Za-z]{1,40}"


@dataclass(frozen=True, slots=True)
class JsonObject:
    """Any JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """JSON that conforms to a schema, given as JSON text.

    `strict`: a keyword that cannot be enforced is an error; otherwise the Accepted event lists it.
    """

    schema: str
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Regex:
    """A regular expression that the whole completion matches."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Lark:
    """A grammar in llguidance's Lark dialect."""

    text: str


@dataclass(frozen=True, slots=True)
class Gbnf:
    """A grammar in llama.cpp's GBNF notation."""

    text: str


Constraint = JsonObject | JsonSchema | Regex | Lark | Gbnf


class Echo(Enum):
    """Whether the reply includes the prompt. The values are the protobuf enum's."""

    FIRST = pb.ECHO_FIRST  # the prompt, then the completion
    ALONE = pb.ECHO_ALONE  # the prompt; nothing is generated


class ToolChoice(Enum):
    """Whether the completion calls tools. The values are the protobuf enum's."""

    AUTO = pb.Tools.AUTO
    REQUIRED = pb.Tools.REQUIRED  # at least one call, of any tool
    NAMED = pb.Tools.NAMED  # a call of the named tool


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the caller runs. `parameters`: JSON Schema of its arguments, an object."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] = field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool = False  # a keyword of the schema that cannot be enforced is an error


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of one request. A request with tool choice "none" has no Tools."""

    tools: Sequence[Tool]
    choice: ToolChoice = ToolChoice.AUTO
    name: str = ""  # the tool to call, with NAMED
    one_at_a_time: bool = False  # at most one call in a completion

    @property
    def callable(self) -> Sequence[Tool]:
        """The tools that the completion may call."""
        if self.choice is ToolChoice.NAMED:
            return [tool for tool in self.tools if tool.name == self.name]
        return self.tools


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """How reasoning and tool calls are marked in a chat's completion."""

    tool_calls: str = "auto"  # a format's name; "auto": as the chat template says
    reasoning_start: str | None = None  # None: as the chat template says
    reasoning_end: str | None = None
    budget_message: str = ""  # precedes an end of reasoning that its budget forces


def definition(tool: Tool) -> Json:
    """The tool in OpenAI's form, which chat templates expect."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def with_arguments_read(call: Json) -> Json:
    """A message's tool call with its arguments parsed into an object; unchanged where they are not one."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = orjson.loads(function["arguments"] or "{}")
    except orjson.JSONDecodeError:
        return call
    if not isinstance(arguments, dict):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def set_constraint(submit: pb.Submit, constraint: Constraint | None) -> None:
    match constraint:
        case JsonObject():
            submit.json_object = True
        case JsonSchema(schema, strict):
            submit.json_schema = schema
            if strict is not None:
                submit.strict = strict
        case Regex(pattern):
            submit.regex = pattern
        case Lark(text):
            submit.lark = text
        case Gbnf(text):
            submit.gbnf = text


def read_constraint(submit: pb.Submit) -> Constraint | None:
    match submit.WhichOneof("constraint"):
        case "json_object":
            return JsonObject() if submit.json_object else None
        case "json_schema":
            return JsonSchema(submit.json_schema, submit.strict if submit.HasField("strict") else None)
        case "regex":
            return Regex(submit.regex)
        case "lark":
            return Lark(submit.lark)
        case "gbnf":
            return Gbnf(submit.gbnf)
    return None


def set_echo(submit: pb.Submit, echo: Echo | None) -> None:
    if echo is not None:
        submit.echo = echo.value


def read_echo(submit: pb.Submit) -> Echo | None:
    return Echo(submit.echo) if submit.echo else None


def set_scales(submit: pb.Submit, scales: Sequence[AdapterScale]) -> None:
    for scale in scales:
        adapter = {"id": scale.adapter} if isinstance(scale.adapter, int) else {"name": scale.adapter}
        submit.lora.append(pb.AdapterScale(**adapter, scale=scale.scale))


def read_scales(submit: pb.Submit) -> list[AdapterScale]:
    """The scale that the request asks of each adapter. Raises InvalidRequest when there are too many."""
    if len(submit.lora) > MOST_ADAPTERS:
        raise InvalidRequest(f"lora takes at most {MOST_ADAPTERS} entries", param="lora")
    return [
        AdapterScale(each.id if each.WhichOneof("adapter") == "id" else each.name, each.scale) for each in submit.lora
    ]


def set_tools(chat: pb.Chat, tools: Tools | None) -> None:
    """Raises InvalidRequest for an integer of more than 64 bits in a schema."""
    if tools is None or not tools.tools:
        return
    for tool in tools.tools:
        parameters = json_bytes(tool.parameters, "tools", f"tools: {tool.name[:64]}")
        chat.tools.tools.add(
            name=tool.name, description=tool.description, parameters_json=parameters, strict=tool.strict
        )
    chat.tools.choice = pb.Tools.Choice.ValueType(tools.choice.value)
    chat.tools.name = tools.name
    chat.tools.one_at_a_time = tools.one_at_a_time


def read_tools(chat: pb.Chat) -> Tools | None:
    """Raises InvalidRequest when a schema is not an object, or when the tool to call is not among the tools."""
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
    if output.reasoning_start is not None:
        chat.output.reasoning_start = output.reasoning_start
    if output.reasoning_end is not None:
        chat.output.reasoning_end = output.reasoning_end
    chat.output.budget_message = output.budget_message


def read_output_format(chat: pb.Chat) -> OutputFormat:
    output = chat.output
    return OutputFormat(
        output.tool_calls or "auto",
        output.reasoning_start if output.HasField("reasoning_start") else None,
        output.reasoning_end if output.HasField("reasoning_end") else None,
        output.budget_message,
    )
