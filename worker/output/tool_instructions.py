"""Chats with tools for templates that know of none: what the template cannot write is said in messages."""

import json
from collections.abc import Sequence
from typing import Any

from atelier.submission import Tools, definition, with_arguments_read

Message = dict[str, Any]

BEFORE = "You can call these functions. They are described as JSON, one on each line:"
AFTER = (
    "To call a function, answer with nothing but a JSON object of this form, with the function's name and its "
    'arguments: {"name": "...", "arguments": {...}}\n'
    "You are then told what it returned. If no function helps, answer in plain words."
)
RESULT = "The function {name} returned:"


def as_plain_chat(messages: Sequence[Message], tools: Tools | None, *, has_system: bool) -> list[Message]:
    """The chat in the roles that every template knows; without tools in it or before it, as it was.

    `has_system`: the template knows system messages; otherwise the first user's says it.
    """
    names = {call.get("id"): _function(call).get("name") for message in messages for call in _calls(message)}
    plain = [_plain(message, names) for message in messages]
    if tools is not None:
        plain = _instructed(plain, describe(tools), "system" if has_system else "user")
    return _merged(plain) if plain != list(messages) else plain


def describe(tools: Tools) -> str:
    """What the model is told of the tools."""
    lines = [json.dumps(definition(tool)["function"], ensure_ascii=False) for tool in tools.callable]
    return "\n".join([BEFORE, *lines, AFTER])


def _plain(message: Message, names: dict[Any, Any]) -> Message:
    if message.get("role") == "tool":
        name = message.get("name") or names.get(message.get("tool_call_id")) or ""
        head = RESULT.format(name=name).replace("  ", " ")
        return {"role": "user", "content": f"{head}\n{_text(message)}", "_result": True}
    if not (calls := _calls(message)):
        return message
    written = [json.dumps(_written(_function(call)), ensure_ascii=False) for call in calls]
    text = "\n".join([each for each in (_text(message), *written) if each])
    return {**{key: value for key, value in message.items() if key != "tool_calls"}, "content": text}


def _written(function: dict[str, Any]) -> dict[str, Any]:
    return {"name": function.get("name"), "arguments": function.get("arguments") or {}}


def _instructed(messages: list[Message], text: str, role: str) -> list[Message]:
    """The text at the end of the first message of that role, or in one of its own."""
    at = next((at for at, message in enumerate(messages) if message.get("role") == role), None)
    if at is None:
        return [{"role": role, "content": text}, *messages]
    own = _text(messages[at])
    both = [own, text] if role == "system" else [text, own]
    said = {**messages[at], "content": "\n\n".join(each for each in both if each)}
    return [*messages[:at], said, *messages[at + 1 :]]


def _merged(messages: list[Message]) -> list[Message]:
    """Results of several calls, and what the user says to them, as one message: many templates want turns."""
    merged: list[Message] = []
    for message in messages:
        last = merged[-1] if merged else {}
        if message.get("role") == "user" == last.get("role") and "_result" in last:
            merged[-1] = {**message, "content": f"{_text(last)}\n\n{_text(message)}"}
        else:
            merged.append(message)
    return [{key: value for key, value in message.items() if key != "_result"} for message in merged]


def _calls(message: Message) -> list[dict[str, Any]]:
    calls = message.get("tool_calls")
    return [with_arguments_read(call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _function(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    return function if isinstance(function, dict) else {}


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
