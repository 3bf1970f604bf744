"""Anthropic's request bodies as the core's calls. Pure."""

from collections.abc import Sequence

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json, json_text
from atelier.prompt_end import PromptEnd, end_after
from atelier.submission import JsonSchema, Tool, ToolChoice, Tools
from gateway.core.call import Call, Chat
from gateway.dialects.anthropic.anthropic_messages import chat_messages
from gateway.dialects.anthropic.anthropic_requests import (
    SETTINGS,
    ClientTool,
    MessagesBody,
    PromptBody,
    Thinking,
    ThinkingBlock,
    ToolChoiceEntry,
)
from gateway.dialects.requested_reasoning import budget_setting
from gateway.dialects.tool_choice import named, reject_namesakes, require_some


def messages_call(body: MessagesBody) -> Call:
    """Raises InvalidRequest, UnsupportedField."""
    reject_present(body, "compaction")
    settings = {setting: getattr(body, name) for name, setting in SETTINGS.items()}
    settings |= {"max_tokens": body.max_tokens, "stop": body.stop_sequences or None}
    settings |= budget_setting(body.reasoning_budget, thinking_budget(body))
    prompt, end = chat_prompt(body)
    return Call(
        model=body.model,
        prompts=[prompt],
        prompt_end=end,
        tools=callable_tools(body.tools or [], body.tool_choice),
        template_arguments=template_arguments(body),
        settings={name: value for name, value in settings.items() if value is not None},
        max_tokens_is_bound=True,  # the field is required here, and clients set it high
        constraint=output_schema(body),
        priority=body.priority,
        timeout=body.timeout,
        preset=body.preset,
        ttl=body.ttl,
    )


def count_call(body: PromptBody) -> Call:
    """A call with the same prompt as `messages_call`. Raises InvalidRequest, UnsupportedField."""
    prompt, end = chat_prompt(body)
    return Call(
        model=body.model,
        prompts=[prompt],
        prompt_end=end,
        tools=callable_tools(body.tools or [], body.tool_choice),
        template_arguments=template_arguments(body),
        settings=budget_setting(thinking_budget(body)),
        preset=body.preset,
    )


def chat_prompt(body: PromptBody) -> tuple[Chat, PromptEnd]:
    """The chat, and how its prompt ends: a last turn of the assistant's is continued."""
    reject_present(body, "mcp_servers", "container", "thread")
    messages = chat_messages(body.system, body.messages)
    end = end_after(messages)
    if end is PromptEnd.CONTINUED_MESSAGE:
        check_prefill(body, messages[-1])
    return Chat.of(messages), end


def check_prefill(body: PromptBody, turn: Json) -> None:
    """Raises InvalidRequest where Anthropic's API rejects the assistant's last turn. `turn`: as a message."""
    path = f"messages[{len(body.messages) - 1}]"
    content = body.messages[-1].content
    if not isinstance(content, str) and content and isinstance(content[-1], ThinkingBlock):
        raise InvalidRequest(f"{path}: the last block of the assistant's turn must not be thinking", param=path)
    if turn["content"] != turn["content"].rstrip():
        raise InvalidRequest(f"{path}: the assistant's last turn must not end with white space", param=path)
    if body.thinking is not None and body.thinking.type != "disabled" and not turn.get("reasoning_content"):
        message = f"{path}: thinking is over when a turn has begun with text; disable thinking, or send its block first"
        raise InvalidRequest(message, param="thinking")
    if output_schema(body) is not None:
        message = f"{path}: the rest of a turn cannot follow a format; leave out output_config.format or the last turn"
        raise InvalidRequest(message, param="output_config.format")


def reject_present(body: PromptBody, *names: str) -> None:
    for name in names:
        if getattr(body, name):
            raise UnsupportedField(f"{name}: not supported; leave it out.", param=name)


def template_arguments(body: PromptBody) -> Json:
    """Empty if the request sets neither thinking nor effort: then the chat template's defaults apply."""
    arguments: Json = {}
    if body.thinking is not None:
        arguments = thinking_arguments(body.thinking)
    if body.output_config is not None and (effort := body.output_config.effort):
        arguments["reasoning_effort"] = effort
    return arguments


def thinking_arguments(thinking: Thinking) -> Json:
    if thinking.type == "enabled" and thinking.budget_tokens is None:
        raise InvalidRequest("thinking.budget_tokens: is required", param="thinking.budget_tokens")
    return {"enable_thinking": thinking.type != "disabled"}


def thinking_budget(body: PromptBody) -> int | None:
    """0 without thinking, for models whose template cannot turn it off. Anthropic's bounds are not required."""
    if body.thinking is None:
        return None
    return 0 if body.thinking.type == "disabled" else body.thinking.budget_tokens


def output_schema(body: PromptBody) -> JsonSchema | None:
    output = (body.output_config and body.output_config.format) or body.output_format
    if output is None:
        return None
    return JsonSchema(json_text(output.schema_), strict=False)


def callable_tools(entries: Sequence[ClientTool], choice: ToolChoiceEntry | None) -> Tools | None:
    """The tools that the completion may call; None if it must not call any."""
    tools = [tool(entry, f"tools[{i}]") for i, entry in enumerate(entries)]
    reject_namesakes(dict(enumerate(tools)), "tools[{}].name")
    kind = choice.type if choice else "auto"
    if kind == "none" or (kind == "auto" and not tools):
        return None
    require_some(tools)
    one = bool(choice and choice.disable_parallel_tool_use)
    if kind != "tool":
        return Tools(tools, ToolChoice.AUTO if kind == "auto" else ToolChoice.REQUIRED, one_at_a_time=one)
    return named(tools, (choice and choice.name) or "", "tool_choice.name", one_at_a_time=one)


def tool(entry: ClientTool, path: str) -> Tool:
    if entry.type not in (None, "custom"):
        raise UnsupportedField(
            f'{path}: tools of type "{entry.type[:40]}" are not supported; define yours with an input_schema.',
            param=path,
        )
    if entry.input_schema is None:
        raise InvalidRequest(f"{path}.input_schema: is required", param=f"{path}.input_schema")
    if entry.input_schema.get("type") != "object":
        param = f"{path}.input_schema.type"
        raise InvalidRequest(f'{param}: must be "object"', param=param)
    return Tool(entry.name, entry.description or "", entry.input_schema, bool(entry.strict))
