"""Anthropic's bodies to the core's calls, and the core's completions to Anthropic's messages. Pure."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

import orjson
from pydantic_core import from_json

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json
from atelier.submission import JsonSchema, Tool, ToolChoice, Tools
from gateway.core.answer import Answering
from gateway.core.call import Call, Chat
from gateway.core.events import Completion, Finished, StopReason, ToolCall
from gateway.dialects.anthropic.anthropic_messages import chat_messages
from gateway.dialects.anthropic.anthropic_requests import (
    SETTINGS,
    ClientTool,
    MessagesBody,
    PromptBody,
    Thinking,
    ToolChoiceEntry,
)
from gateway.dialects.tool_choice import named, refuse_namesakes, require_some

STOP_REASONS = {
    StopReason.EOS_FOUND: "end_turn",
    StopReason.MAX_PREDICTED_TOKENS_REACHED: "max_tokens",
    StopReason.CONTEXT_LENGTH_REACHED: "model_context_window_exceeded",
    StopReason.TOOL_CALLS: "tool_use",
}
# Clients want one and send it back. Anthropic's guards its thinking against changes; a local model's needs no guard.
SIGNATURE = "bG0tYXRlbGllcg=="


def messages_call(body: MessagesBody) -> Call:
    """InvalidRequest, UnsupportedField."""
    if body.messages[-1].role == "assistant":
        raise UnsupportedField("messages: the last must be the user's; answers are not begun here.", param="messages")
    refuse_given(body, "compaction")
    check_budget(body)
    settings = {setting: getattr(body, name) for name, setting in SETTINGS.items()}
    settings |= {"max_tokens": body.max_tokens, "stop": body.stop_sequences or None}
    return Call(
        model=body.model,
        prompts=[chat_prompt(body)],
        tools=chosen_tools(body.tools or [], body.tool_choice),
        template_arguments=template_arguments(body),
        settings={name: value for name, value in settings.items() if value is not None},
        max_tokens_is_bound=True,  # this dialect's clients have to send one, and send a large one
        constraint=output_schema(body),
        priority=body.priority,
        timeout=body.timeout,
        preset=body.preset,
        ttl=body.ttl,
    )


def count_call(body: PromptBody) -> Call:
    """The prompt that messages would have."""
    return Call(
        model=body.model,
        prompts=[chat_prompt(body)],
        tools=chosen_tools(body.tools or [], body.tool_choice),
        template_arguments=template_arguments(body),
        preset=body.preset,
    )


def chat_prompt(body: PromptBody) -> Chat:
    refuse_given(body, "mcp_servers", "container", "thread")
    return Chat.of(chat_messages(body.system, body.messages))


def refuse_given(body: PromptBody, *names: str) -> None:
    for name in names:
        if getattr(body, name):
            raise UnsupportedField(f"{name}: not supported; leave it out.", param=name)


def check_budget(body: MessagesBody) -> None:
    budget = body.thinking.budget_tokens if body.thinking else None
    if budget is not None and budget >= body.max_tokens:
        param = "thinking.budget_tokens"
        raise InvalidRequest(f"{param}: must be less than max_tokens, {body.max_tokens}", param=param)


def template_arguments(body: PromptBody) -> Json:
    """Without a word of the request, a template does what it does by itself."""
    arguments: Json = {}
    if body.thinking is not None:
        arguments = thinking_arguments(body.thinking)
    if body.output_config is not None and (effort := body.output_config.effort):
        arguments["reasoning_effort"] = effort
    return arguments


def thinking_arguments(thinking: Thinking) -> Json:
    if thinking.type == "enabled" and thinking.budget_tokens is None:
        raise InvalidRequest("thinking.budget_tokens: is required", param="thinking.budget_tokens")
    wanted = thinking.type != "disabled"
    if wanted and thinking.budget_tokens is not None:
        return {"enable_thinking": True, "thinking_budget": thinking.budget_tokens}
    return {"enable_thinking": wanted}


def output_schema(body: PromptBody) -> JsonSchema | None:
    form = (body.output_config and body.output_config.format) or body.output_format
    if form is None:
        return None
    # The standard library's encoder: orjson refuses numbers of more than 64 bits, which a schema may have.
    return JsonSchema(json.dumps(form.schema_, ensure_ascii=False, separators=(",", ":")), False)


def chosen_tools(entries: Sequence[ClientTool], choice: ToolChoiceEntry | None) -> Tools | None:
    """What the completion may call; None where it is to call nothing."""
    tools = [tool(entry, f"tools[{i}]") for i, entry in enumerate(entries)]
    refuse_namesakes(dict(enumerate(tools)), "tools[{}].name")
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
            f'{path}: tools of type "{entry.type[:40]}" are not served here; describe yours with an input_schema.',
            param=path,
        )
    if entry.input_schema is None:
        raise InvalidRequest(f"{path}.input_schema: is required", param=f"{path}.input_schema")
    if entry.input_schema.get("type") != "object":
        param = f"{path}.input_schema.type"
        raise InvalidRequest(f'{param}: must be "object"', param=param)
    return Tool(entry.name, entry.description or "", entry.input_schema, bool(entry.strict))


def shows_thinking(body: MessagesBody) -> bool:
    return body.thinking is None or body.thinking.display != "omitted"


def message_id() -> str:
    return f"msg_{uuid.uuid4().hex}"


def message_object(name: str, content: list[Json], end: Json, usage: Json, id: str | None = None) -> Json:
    return {
        "id": id or message_id(),
        "type": "message",
        "role": "assistant",
        "model": name,
        "content": content,
        **end,
        "usage": usage,
    }


def whole_message(generation: Answering, completion: Completion, *, show_thinking: bool = True) -> Json:
    end = ending(completion.finished, generation.plan.call)
    content = content_blocks(completion, show_thinking=show_thinking)
    return message_object(generation.plan.name, content, end, usage(generation))


def content_blocks(completion: Completion, *, show_thinking: bool = True) -> list[Json]:
    """In the order in which they come in a stream."""
    blocks: list[Json] = []
    if completion.reasoning:
        thinking = completion.reasoning if show_thinking else ""
        blocks.append({"type": "thinking", "thinking": thinking, "signature": SIGNATURE})
    if completion.text:
        blocks.append({"type": "text", "text": completion.text})
    return blocks + [tool_use(call) for call in completion.tool_calls]


def tool_use(call: ToolCall) -> Json:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": tool_input(call.arguments)}


def tool_input(arguments: str) -> orjson.Fragment:
    """An object. Of a call that max_tokens cut off, what there is, as Anthropic's client reads it in a stream."""
    try:
        value = from_json(arguments, allow_inf_nan=False)
    except ValueError:
        value = _partial(arguments)
    # A fragment, since orjson itself writes no number of more than 64 bits.
    return orjson.Fragment(json.dumps(value if isinstance(value, dict) else {}, separators=(",", ":")))


def _partial(arguments: str) -> Any:
    try:
        return from_json(arguments, allow_inf_nan=False, allow_partial=True)
    except ValueError:
        return {}


def ending(finished: Finished, call: Call) -> Json:
    """A stop string of a preset's is no word of the client's: the turn has ended."""
    if finished.reason is StopReason.STOP_STRING_FOUND and finished.stop_string in call.settings.get("stop", ()):
        return {"stop_reason": "stop_sequence", "stop_sequence": finished.stop_string}
    return {"stop_reason": STOP_REASONS.get(finished.reason, "end_turn"), "stop_sequence": None}


def usage(generation: Answering) -> Json:
    """Tokens of the prompt are told apart by whether they were computed. Until it ends, none are known as cached."""
    cached = generation.cached_tokens
    told: Json = {
        "input_tokens": generation.prompt_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": generation.completion_tokens,
    }
    if thinking := generation.reasoning_tokens:
        told["output_tokens_details"] = {"thinking_tokens": thinking}
    return told
