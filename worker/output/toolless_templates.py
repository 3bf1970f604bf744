"""Chats with tools for templates that do not support them: what the template cannot write is put into messages.

Some templates know no tools at all. Others write the tools, but leave out the calls of earlier turns.
"""

import json
from collections.abc import Mapping, Sequence

from atelier.json_types import Json
from atelier.submission import Tools, definition, with_arguments_read
from worker.output.family_format import FamilyFormat, JsonCall, PythonCall
from worker.output.family_table import FORMATS

BEFORE = "You can call these functions. They are described as JSON, one on each line:"
AFTER = (
    "To call a function, answer with nothing but a JSON object of this form, with the function's name and its "
    'arguments: {"name": "...", "arguments": {...}}\n'
    "You are then told what it returned. If no function helps, answer in plain words."  # words: a prompt
)
RESULT = "The function {name} returned:"
RESULT_MESSAGE = "_result"  # marks a message that was made of a result, until messages are merged


def as_plain_chat(messages: Sequence[Json], tools: Tools | None, *, has_system: bool) -> list[Json]:
    """The chat in the roles that every template knows. A chat without tools is returned unchanged.

    `has_system`: the template knows system messages. Otherwise the first user message describes the tools.
    """
    names = {call.get("id"): _function(call).get("name") for message in messages for call in _calls(message)}
    plain = [_plain(message, names) for message in messages]
    if tools is not None:
        plain = _instructed(plain, describe(tools), "system" if has_system else "user")
    return _merged(plain) if plain != list(messages) else plain


def describe(tools: Tools) -> str:
    """The description of the tools that the model receives."""
    lines = [json.dumps(definition(tool)["function"], ensure_ascii=False) for tool in tools.callable]
    return "\n".join([BEFORE, *lines, AFTER])


def _plain(message: Json, names: Mapping[object, object]) -> Json:
    if message.get("role") == "tool":
        name = message.get("name") or names.get(message.get("tool_call_id")) or ""
        head = RESULT.format(name=name).replace("  ", " ")
        return {"role": "user", "content": f"{head}\n{_text(message)}", RESULT_MESSAGE: True}
    if not (calls := _calls(message)):
        return message
    written = [_json_call(_function(call), JsonCall()) for call in calls]
    text = "\n".join([each for each in (_text(message), *written) if each])
    return {**_without_calls(message), "content": text}


def _instructed(messages: list[Json], text: str, role: str) -> list[Json]:
    """With the text in the first message of that role: at a system message's end, or a user message's beginning."""
    at = next((at for at, message in enumerate(messages) if message.get("role") == role), None)
    if at is None:
        return [{"role": role, "content": text}, *messages]
    own = _text(messages[at])
    both = [own, text] if role == "system" else [text, own]
    instructed = {**messages[at], "content": "\n\n".join(each for each in both if each)}
    return [*messages[:at], instructed, *messages[at + 1 :]]


def _merged(messages: list[Json]) -> list[Json]:
    """With results and the user message after them in one message: many templates require alternating roles."""
    merged: list[Json] = []
    for message in messages:
        last = merged[-1] if merged else {}
        if message.get("role") == "user" == last.get("role") and RESULT_MESSAGE in last:
            merged[-1] = {**message, "content": f"{_text(last)}\n\n{_text(message)}"}
        else:
            merged.append(message)
    return [{key: value for key, value in message.items() if key != RESULT_MESSAGE} for message in merged]


def with_calls_written(messages: Sequence[Json], format: FamilyFormat) -> list[Json]:
    """The chat with the calls of earlier turns as text at the end of their messages, in the family's format."""
    if not isinstance(format.call, JsonCall | PythonCall):
        format = FORMATS["json"]
    return [_with_calls(message, format) for message in messages]


def _with_calls(message: Json, format: FamilyFormat) -> Json:
    functions = [function for call in _calls(message) if (function := _function(call))]
    if not functions:
        return message
    written = (format.separator or "").join(_written(function, format) for function in functions)
    text = f"{format.begin}{'[' * format.listed}{written}{']' * format.listed}{format.end}"
    if not format.begin:
        text = f"\n{text}"
    content = message.get("content") or ""
    if isinstance(content, list):
        return {**_without_calls(message), "content": [*content, {"type": "text", "text": text}]}
    return {**_without_calls(message), "content": f"{content}{text}" if content else text.lstrip()}


def _written(function: Json, format: FamilyFormat) -> str:
    form, name, arguments = format.call, function.get("name"), function.get("arguments") or {}
    if isinstance(form, PythonCall) and isinstance(arguments, dict):
        keywords = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        return f"{form.before}{name}({keywords}){form.after}"
    text = _json_call(function, form if isinstance(form, JsonCall) else JsonCall())
    return f"{form.before}{text}{form.after}"


def _json_call(function: Json, form: JsonCall) -> str:
    call = {form.name_key: function.get("name"), form.arguments_key: function.get("arguments") or {}}
    return json.dumps(call, ensure_ascii=False)


def _calls(message: Json) -> list[Json]:
    calls = message.get("tool_calls")
    return [with_arguments_read(call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _without_calls(message: Json) -> Json:
    return {key: value for key, value in message.items() if key != "tool_calls"}


def _function(call: Json) -> Json:
    function = call.get("function")
    return function if isinstance(function, dict) else {}


def _text(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
