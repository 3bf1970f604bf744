"""From a body to its turn: what the model may call, the core's call, and what the conversation continues. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json, json_bytes
from atelier.prompt_end import PromptEnd, check_final_message
from atelier.submission import Constraint, JsonObject, JsonSchema, Tool, Tools
from gateway.core.call import Call, Chat
from gateway.core.mcp_server_config import APPROVALS
from gateway.dialects.body import requested_logprobs
from gateway.dialects.openai.mcp_tool import MCPTool, requested_server, server_entries
from gateway.dialects.openai.openai_calls import SETTINGS
from gateway.dialects.requested_reasoning import budget_setting
from gateway.dialects.responses.conversation_prompt import ServedCalls, chat_messages, is_open
from gateway.dialects.responses.hosted_call_items import Consent, approved_calls, new_listings
from gateway.dialects.responses.responses_requests import (
    AllowedFunctions,
    ChosenServer,
    FunctionTool,
    NamedFunction,
    OtherTool,
    ResponseBody,
    TextFormat,
)
from gateway.dialects.tool_choice import chosen_by_word, function_tool, named, reject_namesakes, require_tool, some_of
from gateway.tools.loop.server_selection import RequestedServer, quoted_label
from gateway.tools.loop.toolset import HostedCall, ServerListing, Toolset

HIDDEN = "<redacted>"


def uses_servers(body: ResponseBody) -> bool:
    """Whether the model may call tools of MCP servers."""
    return bool(server_entries(body.tools))


def requested_servers(body: ResponseBody) -> list[RequestedServer]:
    return [
        requested_server(entry, path, usual=APPROVALS[usual_approval(entry)])
        for path, entry in server_entries(body.tools)
    ]


def usual_approval(tool: MCPTool) -> str:
    """The default of require_approval: always, as OpenAI has it, for servers that the request names by URL.

    The operator's servers need approval only if the request or mcp.json says so.
    """
    return "never" if tool.server_url is None else "always"


def own_functions(body: ResponseBody) -> list[Tool]:
    """The tools that the client runs. Raises InvalidRequest and UnsupportedField with the tool at fault."""
    tools = {
        number: _tool(entry, f"tools[{number}]")
        for number, entry in enumerate(body.tools or [])
        if not isinstance(entry, MCPTool)
    }
    reject_namesakes(tools, "tools[{}].name")
    return list(tools.values())


def response_tools(body: ResponseBody, toolset: Toolset | None = None) -> Tools | None:
    """The tools that the model may call, or None. `toolset`: the tools of the MCP servers that the body names."""
    tools = own_functions(body) + (toolset.definitions() if toolset else [])
    one = body.parallel_tool_calls is False
    match body.tool_choice:
        case None | "none" | "auto" | "required" as word:
            return chosen_by_word(word, tools, one_at_a_time=one)
        case NamedFunction(name=name):
            return named(tools, name, "tool_choice.name", one_at_a_time=one)
        case ChosenServer(server_label=label, name=tool):
            names = _server_tools(toolset, label, tool, "tool_choice")
            if tool is not None:
                return named(tools, names[0], "tool_choice.name", one_at_a_time=one)
            return some_of(tools, names, "required", one_at_a_time=one)
        case AllowedFunctions() as choice:
            return some_of(tools, _allowed_names(choice, tools, toolset), choice.mode, one_at_a_time=one)
    raise UnsupportedField(
        f'tool_choice.type: "{body.tool_choice.type[:40]}" is not supported', param="tool_choice.type"
    )


def _allowed_names(choice: AllowedFunctions, tools: Sequence[Tool], toolset: Toolset | None) -> list[str]:
    names: list[str] = []
    for number, entry in enumerate(choice.tools):
        path = f"tool_choice.tools[{number}]"
        if entry.type == "mcp":
            names += _server_tools(toolset, entry.server_label or "", entry.name, path)
        else:
            require_tool(tools, entry.name or "", f"{path}.name")
            names.append(entry.name or "")
    return names


def _server_tools(toolset: Toolset | None, label: str, name: str | None, path: str) -> list[str]:
    """The names that the model knows a server's tools by: of the named tool, or of all; at least one."""
    found = toolset.of_server(label) if toolset else []
    if not found:
        param = f"{path}.server_label"
        raise InvalidRequest(f'{param}: the request has no tools of an MCP server "{quoted_label(label)}"', param=param)
    if name is not None:
        found = [each for each in found if each.name == name]
        require_tool([Tool(each.name) for each in found], name, f"{path}.name")
    return [each.shown for each in found]


def _tool(entry: FunctionTool | OtherTool, path: str) -> Tool:
    if isinstance(entry, OtherTool):
        raise UnsupportedField(
            f'{path}.type: tools of type "{entry.type[:40]}" are not supported; send functions or MCP servers',
            param=f"{path}.type",
        )
    tool = function_tool(entry, path)
    json_bytes(entry.parameters or {}, f"{path}.parameters")  # which the response repeats
    return tool


def tool_objects(body: ResponseBody) -> list[Json]:
    """The tools as the response repeats and stores them."""
    return [
        _server_object(tool) if isinstance(tool, MCPTool) else _function_object(tool)
        for tool in body.tools or []
        if not isinstance(tool, OtherTool)
    ]


def _function_object(tool: FunctionTool) -> Json:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": bool(tool.strict),
    }


def _server_object(tool: MCPTool) -> Json:
    """Without anything that may be secret: headers, the token, and the URL's path and query."""
    asked = tool.model_dump(include={"allowed_tools", "require_approval"}, exclude_none=True)
    return {
        "type": "mcp",
        "server_label": tool.server_label,
        "server_url": None if tool.server_url is None else redacted_url(tool.server_url),
        "server_description": tool.server_description,
        "allowed_tools": asked.get("allowed_tools"),
        "require_approval": asked.get("require_approval", usual_approval(tool)),
    }


def redacted_url(url: str) -> str:
    """The scheme and the host only: paths, queries and user names may contain keys."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return HIDDEN
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    origin = f"{parts.scheme}://{host}{port}"
    return origin if url in (origin, f"{origin}/") else f"{origin}/{HIDDEN}"


def choice_object(body: ResponseBody) -> str | Json:
    match body.tool_choice:
        case None:
            return "auto"
        case str(word):
            return word
        case choice:
            chosen: Json = choice.model_dump(exclude_none=True)
            return chosen


LOGPROBS = "message.output_text.logprobs"  # in `include`
OVERFLOW = {"auto": "rollingWindow", "disabled": "stopAtLimit"}
UNSUPPORTED = {
    "conversation": "not supported; previous_response_id continues a conversation.",
    "prompt": "prompts are not stored; use a preset for a system prompt.",
    "moderation": "not supported; omit it.",
}


def reject_contradictions(body: ResponseBody) -> None:
    for name, reason in UNSUPPORTED.items():
        if getattr(body, name) is not None:
            raise UnsupportedField(f"{name}: {reason}", param=name)
    if body.background and body.store is False:
        raise InvalidRequest("store: must not be false for a response in the background", param="store")
    if body.background and body.stream:
        raise UnsupportedField("stream: cannot be combined with background; omit one.", param="stream")


def response_call(
    body: ResponseBody, items: Sequence[Json], earlier: Sequence[Json] = (), served: ServedCalls | None = None
) -> Call:
    """`items`: of the request's own input. `earlier`: of the conversation that it continues, the oldest first.

    `served`: what is known of the calls of servers' tools in them.
    """
    served = served or ServedCalls()
    conversation = [*earlier, *items]
    messages = chat_messages(body.instructions, conversation, len(earlier), served)
    if not messages:
        raise InvalidRequest("input: must not be empty if there are no instructions", param="input")
    end = PromptEnd.NEW_MESSAGE
    if conversation and is_open(conversation[-1]):
        check_final_message(messages, "input")
        end = PromptEnd.CONTINUED_MESSAGE
    return Call(
        model=body.model,
        prompts=[Chat.of(messages)],
        prompt_end=end,
        tools=response_tools(body, served.toolset),
        template_arguments=body.reasoning.arguments if body.reasoning else {},
        settings=inference_settings(body),
        constraint=format_constraint(body.text.format if body.text else None),
        logprobs=requested_logprobs(LOGPROBS in (body.include or []), body.top_logprobs, f'"{LOGPROBS}" in include'),
        priority=body.priority,
        timeout=body.timeout,
        preset=body.preset,
        ttl=body.ttl,
    )


def inference_settings(body: ResponseBody) -> Json:
    """The settings that the body sets, by the table's names."""
    values = {setting: getattr(body, field, None) for field, setting in SETTINGS.items()}
    values["max_tokens"] = body.max_output_tokens
    values |= budget_setting(body.reasoning_budget, body.reasoning.budget if body.reasoning else None)
    if body.truncation is not None:
        values["context_overflow"] = OVERFLOW[body.truncation]
    return {name: value for name, value in values.items() if value is not None}


def format_constraint(asked: TextFormat | None) -> Constraint | None:
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return JsonObject()
    if asked.schema_ is None:
        raise InvalidRequest("text.format.schema: is required", param="text.format.schema")
    return JsonSchema(json_bytes(asked.schema_, "text.format.schema").decode(), asked.strict)


@dataclass(frozen=True, slots=True)
class Turn:
    """One request. `items`: of its own input, without the conversation that it continues.

    `toolset`: None if the body names no MCP servers. `approved`: run before the model's turn.
    """

    id: str
    owner: str
    body: ResponseBody
    items: Sequence[Json]
    call: Call
    created_at: int
    earlier: Sequence[Json] = ()
    consent: Consent = field(default_factory=Consent)
    toolset: Toolset | None = None
    approved: Sequence[HostedCall] = ()

    @property
    def stored(self) -> bool:
        """Whether the response is to be stored."""
        return self.body.store is not False

    @property
    def listings(self) -> Sequence[ServerListing]:
        """The servers whose tools the response has to list."""
        return new_listings(self.toolset.listings, [*self.earlier, *self.items]) if self.toolset else []

    def resumed(self, results: Sequence[Json]) -> Call:
        """The call, with the results of the approved calls in their places."""
        served = ServedCalls(self.consent, self.toolset, {each["tool_call_id"]: each for each in results})
        return response_call(self.body, self.items, self.earlier, served)


def make_turn(
    id: str,
    owner: str,
    body: ResponseBody,
    items: Sequence[Json],
    earlier: Sequence[Json],
    consent: Consent,
    toolset: Toolset | None,
    created_at: int,
) -> Turn:
    """Raises InvalidRequest and UnsupportedField."""
    approved = approved_calls(consent, toolset)
    call = response_call(body, items, earlier, ServedCalls(consent, toolset))
    return Turn(id, owner, body, items, call, created_at, earlier, consent, toolset, approved)
