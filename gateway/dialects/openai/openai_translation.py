"""OpenAI's bodies to the core's calls, and the core's completions to OpenAI's objects. Pure."""

import json
from typing import Any

from pydantic import BaseModel

from atelier.adapters import AdapterScale
from atelier.errors import InvalidRequest, UnsupportedField
from atelier.generation_types import StopReason
from atelier.settings import TABLE
from atelier.submission import Constraint, Echo, Gbnf, JsonObject, JsonSchema, Lark, Regex, ToolChoice, Tools
from gateway.core.answer import Answering
from gateway.core.call import (
    Call,
    Chat,
    Infill,
    PromptInput,
    Text,
    Tokens,
)
from gateway.core.events import Completion
from gateway.dialects.body import requested_logprobs
from gateway.dialects.openai.best_of import tried
from gateway.dialects.openai.openai_logprobs import TextLogprobs, chat_logprobs
from gateway.dialects.openai.openai_messages import chat_messages
from gateway.dialects.openai.openai_requests import (
    MOST_PROMPTS,
    AdapterEntry,
    ChatBody,
    Common,
    CompletionBody,
    ResponseFormat,
)
from gateway.dialects.openai.openai_tools import chat_tools, function_call_object, tool_call_object
from gateway.dialects.openai.template_arguments import template_arguments
from gateway.tools.loop.toolset import Toolset

FINISH_REASONS = {
    StopReason.EOS_FOUND: "stop",
    StopReason.STOP_STRING_FOUND: "stop",
    StopReason.MAX_PREDICTED_TOKENS_REACHED: "length",
    StopReason.CONTEXT_LENGTH_REACHED: "length",
    StopReason.TOOL_CALLS: "tool_calls",
}

SETTINGS = {row.facts.openai: row.name for row in TABLE["inference"].values() if row.facts.openai}

# What the fields that are not served may hold all the same, because it asks for nothing.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "modalities": ([], ["text"]),
    "prediction": (),
    "web_search_options": (),
    "moderation": (),
    "chat_template": (),
}


def chat_call(body: ChatBody, toolset: Toolset | None = None) -> Call:
    """`toolset`: of the MCP servers that the body names."""
    refuse_unsupported(body)
    settings = sampling_settings(body)
    if body.max_completion_tokens is not None:
        settings["max_tokens"] = body.max_completion_tokens
    tools = chat_tools(body, toolset)
    return Call(
        model=body.model,
        prompts=[Chat.of(chat_messages(body.messages))],
        tools=tools,
        template_arguments=template_arguments(body.reasoning_effort, body.chat_template_kwargs),
        settings=settings,
        constraint=chat_constraint(body, tools),
        choices=body.n or 1,
        logprobs=requested_logprobs(body.logprobs, body.top_logprobs),
        prompt_progress=wants_progress(body),
        priority=body.priority,
        timeout=body.timeout,
        draft_model=body.draft_model,
        lora=adapter_scales(body),
        preset=body.preset,
        ttl=body.ttl,
    )


def adapter_scales(body: Common) -> list[AdapterScale]:
    return [AdapterScale(chosen_adapter(entry, i), entry.scale) for i, entry in enumerate(body.lora or [])]


def chosen_adapter(entry: AdapterEntry, number: int) -> int | str:
    named = [each for each in (entry.id, entry.name) if each is not None]
    if len(named) != 1:
        raise InvalidRequest(f"lora[{number}]: takes either an id or a name", param=f"lora[{number}]")
    return named[0]


def wants_progress(body: Common) -> bool:
    return bool(body.stream and body.return_progress)


def completion_call(body: CompletionBody) -> Call:
    refuse_unsupported(body)
    refuse_odd_best_of(body)
    choices = tried(body)
    prompts = completion_prompts(body)
    if len(prompts) * choices > MOST_PROMPTS:
        raise InvalidRequest(f"prompt: prompts times n may be {MOST_PROMPTS} at most", param="prompt")
    echo = worker_echo(body, prompts)
    return Call(
        model=body.model,
        prompts=prompts,
        settings=completion_settings(body, echo),
        constraint=constraint(body),
        choices=choices,
        # The best are found by them.
        logprobs=0 if body.logprobs is None and choices > (body.n or 1) else body.logprobs,
        echo=echo,
        prompt_progress=wants_progress(body),
        priority=body.priority,
        timeout=body.timeout,
        draft_model=body.draft_model,
        lora=adapter_scales(body),
        preset=body.preset,
        ttl=body.ttl,
    )


def completion_prompts(body: CompletionBody) -> list[PromptInput]:
    prompts = prompt_inputs(body.prompt)
    return [infill(prompts, body.suffix)] if body.suffix else prompts


def infill(prompts: list[PromptInput], suffix: str) -> Infill:
    match prompts:
        case [Text(text)]:
            return Infill(text, suffix)
        case [_]:
            raise UnsupportedField("suffix: not supported with a prompt of token ids; send text.", param="suffix")
    raise UnsupportedField("suffix: not supported with several prompts; send one.", param="suffix")


def refuse_odd_best_of(body: CompletionBody) -> None:
    if body.best_of is None:
        return
    if body.best_of < (body.n or 1):
        raise InvalidRequest("best_of: must be at least n", param="best_of")
    if body.stream and body.best_of > (body.n or 1):
        raise UnsupportedField("best_of: not supported in streams, as the best is known at the end.", param="best_of")


def worker_echo(body: CompletionBody, prompts: list[PromptInput]) -> Echo | None:
    """How the worker tells the prompt. It need not where that is known: of text without log-probabilities."""
    if not body.echo:
        return None
    known = body.logprobs is None and not any(isinstance(prompt, Tokens) for prompt in prompts)
    if known and body.max_tokens != 0:
        return None
    if body.suffix:
        raise UnsupportedField("echo: not supported with a suffix and logprobs, or max_tokens 0.", param="echo")
    return Echo.ALONE if body.max_tokens == 0 else Echo.FIRST


def completion_settings(body: CompletionBody, echo: Echo | None) -> dict[str, Any]:
    settings = sampling_settings(body)
    if body.max_tokens != 0:
        return settings
    if echo is None:
        raise InvalidRequest("max_tokens: must be at least 1, or with echo 0", param="max_tokens")
    return {**settings, "max_tokens": 1}  # the least that the setting may be: nothing is generated


def echoes(body: CompletionBody, call: Call) -> list[str]:
    """What each choice's text begins with, where the prompt is to be echoed and the worker does not tell it."""
    if not body.echo or call.echo is not None:
        return []
    return [prompt_text(prompt) for prompt in call.prompts for _ in range(body.n or 1)]


def prompt_text(prompt: PromptInput) -> str:
    match prompt:
        case Text(text) | Infill(text):
            return text
    return ""


def refuse_unsupported(body: BaseModel) -> None:
    """UnsupportedField for the first field that asks for what is not served."""
    for name, harmless in HARMLESS.items():
        value = getattr(body, name, None)
        if value is not None and not any(value == each and type(value) is type(each) for each in harmless):
            raise UnsupportedField(f"{name}: not supported; leave it out.", param=name)


def sampling_settings(body: Common) -> dict[str, Any]:
    """The settings that the body sets, by the table's names."""
    values = {setting: getattr(body, field) for field, setting in SETTINGS.items()}
    if body.stop is not None:
        values["stop"] = [body.stop] if isinstance(body.stop, str) else body.stop
    return {name: value for name, value in values.items() if value is not None}


def constraint(body: Common) -> Constraint | None:
    """What the completion must follow; InvalidRequest when it is asked for twice."""
    wishes = {
        "response_format": format_constraint(body.response_format),
        "grammar": None if body.grammar is None else grammar_constraint(body.grammar),
        "regex": None if body.regex is None else Regex(body.regex),
    }
    asked = [(name, wish) for name, wish in wishes.items() if wish is not None]
    if len(asked) > 1:
        name = asked[1][0]
        raise InvalidRequest(f"{name}: {asked[0][0]} constrains the completion already; leave one out", param=name)
    return asked[0][1] if asked else None


def chat_constraint(body: ChatBody, tools: Tools | None) -> Constraint | None:
    """A reply that must be calls has no text, which is what a format is for; a grammar is for all of it."""
    asked = constraint(body)
    if asked is None or tools is None or tools.choice is ToolChoice.AUTO:
        return asked
    if not isinstance(asked, JsonObject | JsonSchema):
        name = "regex" if isinstance(asked, Regex) else "grammar"
        raise InvalidRequest(f"{name}: a tool must be called instead; leave one out", param=name)
    return None


def grammar_constraint(text: str) -> Constraint:
    """llama.cpp's notation, unless the text says that it is llguidance's."""
    return Lark(text) if text.lstrip().startswith("%llguidance") else Gbnf(text)


def format_constraint(asked: ResponseFormat | None) -> Constraint | None:
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return JsonObject()
    if asked.json_schema is None:
        raise InvalidRequest("response_format.json_schema: is required", param="response_format.json_schema")
    if asked.json_schema.schema_ is None:
        return JsonObject()
    # The standard library's encoder: orjson refuses numbers of more than 64 bits, which a schema may have.
    text = json.dumps(asked.json_schema.schema_, ensure_ascii=False, separators=(",", ":"))
    return JsonSchema(text, asked.json_schema.strict)


def prompt_inputs(prompt: str | list[str] | list[int] | list[list[int]]) -> list[PromptInput]:
    if isinstance(prompt, str):
        return [Text(prompt)]
    if isinstance(prompt[0], int):
        return [Tokens(prompt)]
    return [Text(each) if isinstance(each, str) else Tokens(each) for each in prompt]


def wants_usage(body: Common) -> bool:
    """In a stream."""
    return bool(body.stream_options and body.stream_options.include_usage)


def finish_reason(reason: StopReason, *, older_calls: bool = False) -> str:
    if older_calls and reason is StopReason.TOOL_CALLS:
        return "function_call"
    return FINISH_REASONS.get(reason, "stop")


def usage(generation: Answering) -> dict[str, Any]:
    prompt, completion = generation.prompt_tokens, generation.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": generation.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": generation.reasoning_tokens},
    }


def chat_choices(completions: list[Completion], *, older_calls: bool = False) -> list[dict[str, Any]]:
    """`older_calls`: a tool call is told as function_call."""
    return [
        {
            "index": index,
            "message": assistant_message(completion, older_calls=older_calls),
            "logprobs": None if completion.logprobs is None else chat_logprobs(completion.logprobs),
            "finish_reason": finish_reason(completion.finished.reason, older_calls=older_calls),
        }
        for index, completion in enumerate(completions)
    ]


def assistant_message(completion: Completion, *, older_calls: bool) -> dict[str, Any]:
    """Calls without a word have no content; reasoning is told where there is some."""
    calls = completion.tool_calls
    content = completion.text if completion.text or not calls else None
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if completion.reasoning:
        message["reasoning_content"] = completion.reasoning
    if not calls:
        return message
    if older_calls:
        return {**message, "function_call": function_call_object(calls[0])}
    return {**message, "tool_calls": [tool_call_object(call) for call in calls]}


def text_choices(completions: list[Completion], openings: list[str] | None = None) -> list[dict[str, Any]]:
    """`openings`: what each choice's text begins with."""
    return [
        {
            "index": index,
            "text": openings[index] + completion.text if openings else completion.text,
            "logprobs": None if completion.logprobs is None else TextLogprobs().render(completion.logprobs),
            "finish_reason": finish_reason(completion.finished.reason),
        }
        for index, completion in enumerate(completions)
    ]
