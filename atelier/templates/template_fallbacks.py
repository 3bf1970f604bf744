"""What to try after a template raised an error: variables it may accept instead. Pure.

Some templates accept one message of a role at a time, no system message but the first, or none; others write more of
each tool's argument than its schema has, or take a call's arguments as text.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jinja2

from atelier.json_types import Json
from atelier.templates.template_adaptation import OTHER_NAMES, REASONING

SAID = {"system", "user", "assistant"}


def fallbacks(variables: Json, error: Exception) -> Iterator[Json]:
    """The template's variables changed in ways that may avoid this error, the least change first."""
    messages, tools = variables["messages"], variables["tools"]
    match error:
        case TypeError():
            if tools is None:
                yield {name: value for name, value in variables.items() if name != "tools"}
            yield {**variables, "messages": [_with_texts(message) for message in messages]}
        case jinja2.UndefinedError() if tools is not None:
            yield {**variables, "tools": [_described(tool) for tool in tools]}
        case jinja2.TemplateError():
            if (said := [_with_one_text(message) for message in messages]) != messages:
                yield {**variables, "messages": said}
            for turns in _other_turns(messages):
                yield {**variables, "messages": turns}


def with_system_in_last_turn(messages: Sequence[Json]) -> list[Json]:
    """The system message moved to the beginning of the last user message; unchanged if either is missing."""
    last = max((at for at, message in enumerate(messages) if message.get("role") == "user"), default=0)
    if not last or messages[0].get("role") != "system":
        return list(messages)
    return [*messages[1:last], *_merged([_by_user(messages[0]), messages[last]]), *messages[last + 1 :]]


def _with_texts(message: Json) -> Json:
    """The arguments of calls as JSON text."""
    calls = message.get("tool_calls")
    return {**message, "tool_calls": list(map(_with_text, calls))} if isinstance(calls, list) else message


def _with_text(call: object) -> object:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(function.get("arguments"), dict):
        return call
    return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}


def _described(tool: Mapping[str, Json]) -> Json:
    """The definition with a description of each argument, empty where it had none, and what objects contain."""
    function = tool["function"]
    parameters = function["parameters"]
    if not isinstance(properties := parameters.get("properties"), dict):
        return dict(tool)
    properties = {name: _described_argument(schema) for name, schema in properties.items()}
    return {**tool, "function": {**function, "parameters": {**parameters, "properties": properties}}}


def _described_argument(schema: object) -> object:
    if not isinstance(schema, dict):
        return schema
    held: Json = {"additionalProperties": {}} if schema.get("type") == "object" else {}
    return {"description": "", **held, **schema}


def _with_one_text(message: Json) -> Json:
    """For templates that allow no text between a message's reasoning and its calls: it becomes reasoning."""
    names = [name for name in (REASONING, *OTHER_NAMES) if message.get(name)]
    content, calls = message.get("content"), message.get("tool_calls")
    if not names or not content or not isinstance(content, str) or not calls or not _are_objects(calls):
        return message
    said = f"{message[names[0]]}\n\n{content}"
    return {**message, **dict.fromkeys(names, said), "content": ""}


def _are_objects(calls: object) -> bool:
    return isinstance(calls, list) and all(isinstance(call, dict) for call in calls)


def _other_turns(messages: Sequence[Json]) -> Iterator[list[Json]]:
    """The same chat with adjacent messages of a role merged; then also with fewer system messages, then with none."""
    later = [message if not at else _by_user(message) for at, message in enumerate(messages)]
    seen = [list(messages)]
    for turned in (messages, later, map(_by_user, messages)):
        if (merged := _merged(turned)) not in seen:
            seen.append(merged)
            yield merged


def _by_user(message: Json) -> Json:
    return {**message, "role": "user"} if message.get("role") == "system" else message


def _merged(messages: Iterable[Json]) -> list[Json]:
    merged: list[Json] = []
    for message in messages:
        if merged and _mergeable(merged[-1], message):
            both = "\n\n".join(filter(None, (merged[-1]["content"], message["content"])))
            merged[-1] = {**merged[-1], **message, "content": both}
        else:
            merged.append(message)
    return merged


def _mergeable(first: Json, second: Json) -> bool:
    return (
        first.get("role") == second.get("role") and first.get("role") in SAID and _is_text(first) and _is_text(second)
    )


def _is_text(message: Json) -> bool:
    return isinstance(message.get("content"), str) and not message.get("tool_calls")
