"""OpenAI's bodies to the core's calls. Pure."""

import json
from typing import Any

from pydantic import BaseModel

from atelier.adapters import AdapterScale
from atelier.errors import InvalidRequest, UnsupportedField
from atelier.settings import TABLE
from atelier.submission import Constraint, Echo, Gbnf, JsonObject, JsonSchema, Lark, Regex, Tool, ToolChoice, Tools
from gateway.core.call import Call, Chat, Infill, PromptInput, Text, Tokens
from gateway.dialects.body import requested_logprobs
from gateway.dialects.openai.chat_prompt import chat_messages, template_arguments
from gateway.dialects.openai.mcp_tool import NamedMCPTool, server_entries
from gateway.dialects.openai.openai_requests import (
    MOST_PROMPTS,
    AdapterEntry,
    AllowedToolsChoice,
    ChatBody,
    Common,
    CompletionBody,
    FunctionReference,
    FunctionToolEntry,
    NamedTool,
    ResponseFormat,
)
from gateway.dialects.tool_choice import allowed, function_tool, named, refuse_namesakes, require_some
from gateway.tools.loop.toolset import Toolset

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


def called_by_older_form(body: ChatBody) -> bool:
    """Whether the caller knows function_call, and no tool_calls."""
    return body.functions is not None and not body.tools


def uses_servers(body: ChatBody) -> bool:
    """Whether the model may call tools of MCP servers."""
    return bool(server_entries(body.tools))


def own_functions(body: ChatBody) -> list[Tool]:
    """Those that the caller runs."""
    entries = [(number, entry) for number, entry in enumerate(body.tools or []) if isinstance(entry, FunctionToolEntry)]
    tools = {number: function_tool(entry.function, f"tools[{number}].function") for number, entry in entries}
    refuse_namesakes(tools, "tools[{}].function.name")
    return list(tools.values())


def chat_tools(body: ChatBody, toolset: Toolset | None = None) -> Tools | None:
    """What the completion may call; None where it is to call nothing. `toolset`: of the MCP servers that it names."""
    if body.tools and body.functions:
        raise InvalidRequest("functions: tools are given already; leave one out", param="functions")
    if called_by_older_form(body):
        return older_tools(body)
    if toolset is None and uses_servers(body):
        raise UnsupportedField("tools: MCP servers are used in /v1/chat/completions, not here", param="tools")
    tools = own_functions(body) + (toolset.definitions() if toolset else [])
    one = body.parallel_tool_calls is False
    match body.tool_choice:
        case "none":
            return None
        case None | "auto":
            return Tools(tools, one_at_a_time=one) if tools else None
        case "required":
            require_some(tools)
            return Tools(tools, ToolChoice.REQUIRED, one_at_a_time=one)
        case NamedTool(function=function):
            return named(tools, function.name, "tool_choice.function.name", one_at_a_time=one)
        case NamedMCPTool(server_label=label, name=name):
            found = toolset.find(label, name) if toolset else None
            return named(tools, found.shown if found else name, "tool_choice.name", one_at_a_time=one)
        case AllowedToolsChoice(allowed_tools=choice):
            names = [entry.function.name for entry in choice.tools]
            path = "tool_choice.allowed_tools.tools[{}].function.name"
            return allowed(tools, names, choice.mode, path, one_at_a_time=one)


def older_tools(body: ChatBody) -> Tools | None:
    """A reply has one function_call at most."""
    tools = [function_tool(entry, f"functions[{i}]") for i, entry in enumerate(body.functions or [])]
    refuse_namesakes(dict(enumerate(tools)), "functions[{}].name")
    match body.function_call:
        case "none":
            return None
        case FunctionReference(name=name):
            return named(tools, name, "function_call.name", one_at_a_time=True)
    return Tools(tools, one_at_a_time=True) if tools else None


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


def tried(body: CompletionBody) -> int:
    """Completions of each prompt that are generated."""
    return max(body.best_of or 1, body.n or 1)


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
