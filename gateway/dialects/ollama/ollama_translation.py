"""Ollama's bodies to the core's calls. Pure."""

import json
from collections.abc import Sequence

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json
from atelier.submission import Constraint, JsonObject, JsonSchema, Tool, Tools
from gateway.core.call import Call, Chat, Infill, PromptInput, Text
from gateway.core.images import EncodedImage, content_of
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


def chat_call(body: OllamaChatBody, name: str) -> Call:
    """`name`: what the body's model means."""
    messages = [message_json(message, number) for number, message in enumerate(body.messages or [])]
    return _call(body, name, Chat.of(messages), tools(body.tools or []))


def generate_call(body: OllamaGenerateBody, name: str) -> Call:
    if body.template:
        raise UnsupportedField("template: not taken from requests; a preset can hold one.", param="template")
    return _call(body, name, prompt_input(body))


def prompt_input(body: OllamaGenerateBody) -> PromptInput:
    """Without a template where the text is to be taken as it is, or has a gap."""
    prompt, system = body.prompt or "", body.system or ""
    if body.raw or body.suffix:
        refuse_messages(body)
    if body.suffix:
        return Infill(prompt, body.suffix)
    if body.raw:
        return Text(prompt)
    opening = [{"role": "system", "content": system}] if system else []
    return Chat.of([*opening, {"role": "user", "content": content(prompt, body.images or [], "images")}])


def refuse_messages(body: OllamaGenerateBody) -> None:
    """What only a message can hold."""
    for name in ("system", "images"):
        if getattr(body, name):
            other = "raw" if body.raw else "suffix"
            raise InvalidRequest(f"{name}: cannot be had together with {other}, which knows no messages", param=name)


def content(text: str, images: Sequence[str], path: str) -> str | list[Json]:
    """The images come before the text, as Ollama has them."""
    return content_of([*(EncodedImage(image, f"{path}[{i}]") for i, image in enumerate(images)), text])


def _call(body: Generating, name: str, prompt: PromptInput, offered: Tools | None = None) -> Call:
    return Call(
        model=name,
        prompts=[prompt],
        tools=offered,
        template_arguments=thinking_arguments(body.think),
        settings=settings(body.options) if body.options else {},
        constraint=constraint(body.format),
        logprobs=wanted_logprobs(body),
        ttl=idle_seconds(body.keep_alive),
    )


def settings(options: OllamaOptions) -> Json:
    """What the options set, by the table's names; what asks for no limit sets nothing."""
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


def constraint(asked: str | Json | None) -> Constraint | None:
    if isinstance(asked, dict):
        # The standard library's encoder: orjson refuses numbers of more than 64 bits, which a schema may have.
        return JsonSchema(json.dumps(asked, ensure_ascii=False, separators=(",", ":")))
    return JsonObject() if asked else None


def wanted_logprobs(body: Generating) -> int | None:
    """For how many of the likeliest tokens beside each token; None: not at all."""
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise InvalidRequest("top_logprobs: needs logprobs to be true", param="top_logprobs")
    return None


def thinking_arguments(think: bool | str | None) -> Json:
    """By the names that templates have for it: Qwen's, that of DeepSeek and Granite, gpt-oss's."""
    if think is None:
        return {}
    switched = {"enable_thinking": bool(think), "thinking": bool(think)}
    return {**switched, "reasoning_effort": think} if isinstance(think, str) else switched


def tools(given: Sequence[OllamaTool]) -> Tools | None:
    return Tools([_tool(each) for each in given]) if given else None


def _tool(given: OllamaTool) -> Tool:
    function = given.function
    schema: Json = {} if function.parameters is None else {"parameters": function.parameters}
    return Tool(function.name, function.description or "", **schema)


def message_json(message: OllamaMessage, number: int) -> Json:
    """The message as chat templates expect it."""
    said = content(message.content or "", message.images or [], f"messages[{number}].images")
    entry: Json = {"role": message.role, "content": said}
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


def named(body: OllamaModelBody) -> str:
    if not (name := body.model or body.name):
        raise InvalidRequest("model: is required", param="model")
    return name
