"""Calls of earlier turns as the family writes them: some templates write tools, and of their calls nothing."""

import json
from collections.abc import Sequence
from typing import Any

from atelier.submission import with_arguments_read
from worker.output.format_table import FORMATS
from worker.output.format_types import Format, JsonCall, PythonCall

Message = dict[str, Any]


def drops_calls(template: str) -> bool:
    """Whether a template that knows tools leaves the calls of earlier turns out."""
    return "tools" in template and "tool_calls" not in template


def with_calls_written(messages: Sequence[Message], format: Format) -> list[Message]:
    """The calls as text of the messages that made them, after what these say."""
    if not isinstance(format.call, JsonCall | PythonCall):
        format = FORMATS["json"]
    return [_with_calls(message, format) for message in messages]


def _with_calls(message: Message, format: Format) -> Message:
    calls = message.get("tool_calls")
    functions = [_function(call) for call in calls] if isinstance(calls, list) else []
    if not any(functions):
        return message
    written = (format.separator or "").join(_written(function, format) for function in functions if function)
    text = f"{format.begin}{'[' * format.listed}{written}{']' * format.listed}{format.end}"
    if not format.begin:
        text = f"\n{text}"
    said, rest = message.get("content") or "", {key: value for key, value in message.items() if key != "tool_calls"}
    if isinstance(said, list):
        return {**rest, "content": [*said, {"type": "text", "text": text}]}
    return {**rest, "content": f"{said}{text}" if said else text.lstrip()}


def _written(function: dict[str, Any], format: Format) -> str:
    call, name, arguments = format.call, function.get("name"), function.get("arguments") or {}
    if isinstance(call, PythonCall) and isinstance(arguments, dict):
        return f"{call.before}{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())}){call.after}"
    keys = (call.name_key, call.arguments_key) if isinstance(call, JsonCall) else ("name", "arguments")
    text = json.dumps(dict(zip(keys, (name, arguments), strict=True)), ensure_ascii=False)
    return f"{call.before}{text}{call.after}"


def _function(call: Any) -> dict[str, Any]:
    function = with_arguments_read(call).get("function") if isinstance(call, dict) else None
    return function if isinstance(function, dict) else {}
