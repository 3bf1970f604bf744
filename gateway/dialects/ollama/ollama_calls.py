"""Ollama's request bodies as the core's calls. Pure."""

from collections.abc import Sequence

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json, json_text
from atelier.prompt_end import PromptEnd, end_after
from atelier.submission import Constraint, JsonObject, JsonSchema, Tool, Tools
from gateway.core.call import Call, Chat, Infill, PromptInput, Text
from gateway.core.images import EncodedImage, content_of
from gateway.dialects.body import requested_logprobs
from gateway.dialects.ollama.keep_alive import idle_seconds
from gateway.dialects.ollama.ollama_requests import (
    MOST_LAST_N,
    SAMPLING,
    Generating,
    OllamaChatBody,
    OllamaGenerateBody,
    OllamaMessage,
    OllamaModelBody,
    OllamaOptions,
    OllamaTool,
)
from gateway.dialects.requested_reasoning import budget_setting


def chat_call(body: OllamaChatBody, name: str) -> Call:
    """`name`: of the model or instance that the body names. A last message of the assistant's is continued.

    Raises InvalidRequest, UnsupportedField.
    """
    messages = [message_json(message, number) for number, message in enumerate(body.messages or [])]
    return _call(body, name, Chat.of(messages), callable_tools(body.tools or []), end_after(messages))


def generate_call(body: OllamaGenerateBody, name: str) -> Call:
    if body.template:
        raise UnsupportedField("template: not supported in requests; set it in a preset.", param="template")
    return _call(body, name, prompt_input(body))


def prompt_input(body: OllamaGenerateBody) -> PromptInput:
    """A chat, unless the prompt is raw or has a suffix."""
    prompt, system = body.prompt or "", body.system or ""
    if body.raw or body.suffix:
        reject_chat_fields(body)
    if body.suffix:
        return Infill(prompt, body.suffix)
    if body.raw:
        return Text(prompt)
    opening = [{"role": "system", "content": system}] if system else []
    return Chat.of([*opening, {"role": "user", "content": content(prompt, body.images or [], "images")}])


def reject_chat_fields(body: OllamaGenerateBody) -> None:
    """Without a chat template these fields would have no effect."""
    for name in ("system", "images"):
        if getattr(body, name):
            other = "raw" if body.raw else "suffix"
            raise InvalidRequest(f"{name}: cannot be combined with {other}, which uses no chat template", param=name)


def content(text: str, images: Sequence[str], path: str) -> str | list[Json]:
    """Images come before the text, as in Ollama."""
    return content_of([*(EncodedImage(image, f"{path}[{i}]") for i, image in enumerate(images)), text])


def _call(
    body: Generating,
    name: str,
    prompt: PromptInput,
    tools: Tools | None = None,
    prompt_end: PromptEnd = PromptEnd.NEW_MESSAGE,
) -> Call:
    return Call(
        model=name,
        prompts=[prompt],
        prompt_end=prompt_end,
        tools=tools,
        template_arguments=thinking_arguments(body.think),
        settings={**thinking_budget(body.think), **(settings(body.options) if body.options else {})},
        constraint=constraint(body.format),
        logprobs=requested_logprobs(body.logprobs, body.top_logprobs),
        ttl=idle_seconds(body.keep_alive),
    )


def settings(options: OllamaOptions) -> Json:
    """The options by setting name; an option that requests no limit sets nothing."""
    values: Json = {name: getattr(options, name) for name in SAMPLING}
    if options.repeat_last_n is not None:
        values["repeat_last_n"] = MOST_LAST_N if options.repeat_last_n < 0 else options.repeat_last_n
    if options.seed is not None and options.seed >= 0:
        values["seed"] = options.seed
    if options.num_predict is not None and options.num_predict > 0:
        values["max_tokens"] = options.num_predict
    if options.stop is not None:
        values["stop"] = [options.stop] if isinstance(options.stop, str) else options.stop
    return {name: value for name, value in values.items() if value is not None}


def constraint(output: str | Json | None) -> Constraint | None:
    if isinstance(output, dict):
        return JsonSchema(json_text(output))
    return JsonObject() if output else None


def thinking_budget(think: bool | int | str | None) -> Json:
    """A number is the budget; without thinking it is 0, for models whose template cannot turn it off."""
    return budget_setting(None if think is None or think is True or isinstance(think, str) else int(think))


def thinking_arguments(think: bool | int | str | None) -> Json:
    """Under every name that templates use: Qwen's, that of DeepSeek and Granite, and that of gpt-oss."""
    if think is None:
        return {}
    switches = {"enable_thinking": bool(think), "thinking": bool(think)}
    return {**switches, "reasoning_effort": think} if isinstance(think, str) else switches


def callable_tools(entries: Sequence[OllamaTool]) -> Tools | None:
    return Tools([_tool(entry) for entry in entries]) if entries else None


def _tool(entry: OllamaTool) -> Tool:
    function = entry.function
    schema: Json = {} if function.parameters is None else {"parameters": function.parameters}
    return Tool(function.name, function.description or "", **schema)


def message_json(message: OllamaMessage, number: int) -> Json:
    """The message for chat templates."""
    parts = content(message.content or "", message.images or [], f"messages[{number}].images")
    entry: Json = {"role": message.role, "content": parts}
    if message.thinking:
        entry["reasoning_content"] = message.thinking
    if message.tool_calls:
        entry["tool_calls"] = [
            {"type": "function", **({"id": call.id} if call.id else {}), "function": call.function.model_dump()}
            for call in message.tool_calls
        ]
    if message.tool_name:
        entry["name"] = message.tool_name
    if message.tool_call_id:
        entry["tool_call_id"] = message.tool_call_id
    return entry


def model_name(body: OllamaModelBody) -> str:
    if not (name := body.model or body.name):
        raise InvalidRequest("model: is required", param="model")
    return name
