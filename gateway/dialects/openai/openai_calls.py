"""OpenAI's bodies to the core's calls. Pure."""

from pydantic import BaseModel

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json, json_text
from atelier.lora_adapters import AdapterScale
from atelier.prompt_end import PromptEnd, check_final_message
from atelier.settings import TABLE
from atelier.submission import Constraint, Echo, Gbnf, JsonObject, JsonSchema, Lark, Regex, Tool, ToolChoice, Tools
from gateway.core.call import Call, Chat, Infill, PromptInput, Text, Tokens
from gateway.dialects.body import requested_logprobs
from gateway.dialects.openai.chat_prompt import chat_messages, checked_arguments, prompt_end
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
from gateway.dialects.requested_reasoning import budget_setting, effort_arguments, template_budget
from gateway.dialects.tool_choice import allowed, chosen_by_word, function_tool, named, reject_namesakes
from gateway.tools.loop.toolset import Toolset

SETTINGS = {row.facts.openai: row.name for row in TABLE["inference"].values() if row.facts.openai}
# Fields that are not supported, and the values that they may have because those request nothing.
HARMLESS: dict[str, tuple[object, ...]] = {
    "audio": (),
    "modalities": ([], ["text"]),
    "prediction": (),
    "web_search_options": (),
    "moderation": (),
    "chat_template": (),
}


def chat_call(body: ChatBody, toolset: Toolset | None = None) -> Call:
    """`toolset`: the tools of the MCP servers that the body names."""
    reject_unsupported(body)
    settings = {**sampling_settings(body), **reasoning_budget(body)}
    if body.max_completion_tokens is not None:
        settings["max_tokens"] = body.max_completion_tokens
    tools = chat_tools(body, toolset)
    messages, end = chat_messages(body.messages), prompt_end(body)
    if end is PromptEnd.CONTINUED_MESSAGE:
        check_final_message(messages)
    return Call(
        model=body.model,
        prompts=[Chat.of(messages)],
        prompt_end=end,
        tools=tools,
        template_arguments=chat_arguments(body),
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


def chat_arguments(body: ChatBody) -> Json:
    """The chat template's; those given by name take precedence over what the reasoning's fields imply."""
    implied = body.reasoning.arguments if body.reasoning else {}
    return {**implied, **effort_arguments(body.reasoning_effort), **checked_arguments(body.chat_template_kwargs or {})}


def reasoning_budget(body: ChatBody) -> Json:
    """The setting, from the first of its names that the body has."""
    budgets = (body.reasoning_budget, body.thinking_budget, body.reasoning.budget if body.reasoning else None)
    return budget_setting(*budgets, template_budget(body.chat_template_kwargs))


def adapter_scales(body: Common) -> list[AdapterScale]:
    return [AdapterScale(chosen_adapter(entry, i), entry.scale) for i, entry in enumerate(body.lora or [])]


def chosen_adapter(entry: AdapterEntry, number: int) -> int | str:
    named = [each for each in (entry.id, entry.name) if each is not None]
    if len(named) != 1:
        raise InvalidRequest(f"lora[{number}]: requires either an id or a name", param=f"lora[{number}]")
    return named[0]


def wants_progress(body: Common) -> bool:
    return bool(body.stream and body.return_progress)


def uses_older_calls(body: ChatBody) -> bool:
    """Whether the client uses functions and function_call instead of tools and tool_calls."""
    return body.functions is not None and not body.tools


def uses_servers(body: ChatBody) -> bool:
    """Whether the model may call tools of MCP servers."""
    return bool(body.tools and server_entries(body.tools))


def own_functions(body: ChatBody) -> list[Tool]:
    """The tools that the client runs."""
    entries = [(number, entry) for number, entry in enumerate(body.tools or []) if isinstance(entry, FunctionToolEntry)]
    tools = {number: function_tool(entry.function, f"tools[{number}].function") for number, entry in entries}
    reject_namesakes(tools, "tools[{}].function.name")
    return list(tools.values())


def chat_tools(body: ChatBody, toolset: Toolset | None = None) -> Tools | None:
    """The tools that the completion may call, or None. `toolset`: the tools of the MCP servers that the body names."""
    if body.tools and body.functions:
        raise InvalidRequest("functions: cannot be combined with tools; omit one", param="functions")
    if uses_older_calls(body):
        return older_tools(body)
    if toolset is None and uses_servers(body):
        raise UnsupportedField("tools: MCP servers are supported in /v1/chat/completions only", param="tools")
    if not body.tools and toolset is None and body.tool_choice in (None, "none", "auto"):
        return None
    tools = own_functions(body) + (toolset.definitions() if toolset else [])
    one = body.parallel_tool_calls is False
    match body.tool_choice:
        case None | "none" | "auto" | "required" as word:
            return chosen_by_word(word, tools, one_at_a_time=one)
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
    """A reply has at most one function_call."""
    tools = [function_tool(entry, f"functions[{i}]") for i, entry in enumerate(body.functions or [])]
    reject_namesakes(dict(enumerate(tools)), "functions[{}].name")
    match body.function_call:
        case FunctionReference(name=name):
            return named(tools, name, "function_call.name", one_at_a_time=True)
        case word:
            return chosen_by_word(word, tools, one_at_a_time=True)


def completion_call(body: CompletionBody) -> Call:
    reject_unsupported(body)
    check_best_of(body)
    choices = tried(body)
    prompts = completion_prompts(body)
    if len(prompts) * choices > MOST_PROMPTS:
        raise InvalidRequest(f"prompt: the number of prompts times n must be at most {MOST_PROMPTS}", param="prompt")
    echo = worker_echo(body, prompts)
    return Call(
        model=body.model,
        prompts=prompts,
        settings=completion_settings(body, echo),
        constraint=constraint(body),
        choices=choices,
        # best_of ranks completions by their log-probabilities.
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
    """How many completions of each prompt are generated."""
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


def check_best_of(body: CompletionBody) -> None:
    if body.best_of is None:
        return
    if body.best_of < (body.n or 1):
        raise InvalidRequest("best_of: must be at least n", param="best_of")
    if body.stream and body.best_of > (body.n or 1):
        raise UnsupportedField("best_of: not supported in streams, as the best is known at the end.", param="best_of")


def worker_echo(body: CompletionBody, prompts: list[PromptInput]) -> Echo | None:
    """How the worker returns the prompt. None: the gateway knows its text, and no log-probabilities are requested."""
    if not body.echo:
        return None
    known = body.logprobs is None and not any(isinstance(prompt, Tokens) for prompt in prompts)
    if known and body.max_tokens != 0:
        return None
    if body.suffix:
        raise UnsupportedField("echo: not supported with a suffix and logprobs, or max_tokens 0.", param="echo")
    return Echo.ALONE if body.max_tokens == 0 else Echo.FIRST


def completion_settings(body: CompletionBody, echo: Echo | None) -> Json:
    settings = sampling_settings(body)
    if body.max_tokens != 0:
        return settings
    if echo is None:
        raise InvalidRequest("max_tokens: must be at least 1, or 0 with echo", param="max_tokens")
    return {**settings, "max_tokens": 1}  # the setting's minimum; nothing is generated all the same


def echoes(body: CompletionBody, call: Call) -> list[str]:
    """The prompt that each choice's text begins with, if it is requested and the worker does not return it."""
    if not body.echo or call.echo is not None:
        return []
    return [prompt_text(prompt) for prompt in call.prompts for _ in range(body.n or 1)]


def prompt_text(prompt: PromptInput) -> str:
    match prompt:
        case Text(text) | Infill(text):
            return text
    return ""


def reject_unsupported(body: BaseModel) -> None:
    """Raises UnsupportedField for the first field that requests an unsupported feature."""
    for name, harmless in HARMLESS.items():
        value = getattr(body, name, None)
        if value is not None and not any(value == each and type(value) is type(each) for each in harmless):
            raise UnsupportedField(f"{name}: not supported; omit it.", param=name)


def sampling_settings(body: Common) -> Json:
    """The settings that the body sets, by the table's names."""
    values = {setting: getattr(body, field) for field, setting in SETTINGS.items()}
    if body.stop is not None:
        values["stop"] = [body.stop] if isinstance(body.stop, str) else body.stop
    return {name: value for name, value in values.items() if value is not None}


def constraint(body: Common) -> Constraint | None:
    """What the completion must match. Raises InvalidRequest if two constraints are given."""
    constraints = {
        "response_format": format_constraint(body.response_format),
        "grammar": None if body.grammar is None else grammar_constraint(body.grammar),
        "regex": None if body.regex is None else Regex(body.regex),
    }
    given = [(name, each) for name, each in constraints.items() if each is not None]
    if len(given) > 1:
        name = given[1][0]
        raise InvalidRequest(f"{name}: cannot be combined with {given[0][0]}; omit one", param=name)
    return given[0][1] if given else None


def chat_constraint(body: ChatBody, tools: Tools | None) -> Constraint | None:
    """If a tool must be called there is no text: a format has no effect then, and a grammar is an error."""
    given = constraint(body)
    if given is None or tools is None or tools.choice is ToolChoice.AUTO:
        return given
    if not isinstance(given, JsonObject | JsonSchema):
        name = "regex" if isinstance(given, Regex) else "grammar"
        raise InvalidRequest(f"{name}: cannot be combined with a tool_choice that requires a call", param=name)
    return None


def grammar_constraint(text: str) -> Constraint:
    """GBNF, llama.cpp's notation, unless the text begins as llguidance's Lark."""
    return Lark(text) if text.lstrip().startswith("%llguidance") else Gbnf(text)


def format_constraint(format: ResponseFormat | None) -> Constraint | None:
    if format is None or format.type == "text":
        return None
    if format.type == "json_object":
        return JsonObject()
    if format.json_schema is None:
        raise InvalidRequest("response_format.json_schema: is required", param="response_format.json_schema")
    if format.json_schema.schema_ is None:
        return JsonObject()
    return JsonSchema(json_text(format.json_schema.schema_), format.json_schema.strict)


def prompt_inputs(prompt: str | list[str] | list[int] | list[list[int]]) -> list[PromptInput]:
    if isinstance(prompt, str):
        return [Text(prompt)]
    if isinstance(prompt[0], int):
        return [Tokens(prompt)]
    return [Text(each) if isinstance(each, str) else Tokens(each) for each in prompt]


def wants_usage(body: Common) -> bool:
    """Whether a stream ends with a chunk that has the usage."""
    return bool(body.stream_options and body.stream_options.include_usage)
