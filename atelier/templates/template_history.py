"""The messages of a chat as one template takes them: the names it reads, the ids and the calls it can write. Pure."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from atelier.templates.template_reading import TemplateReading

Message = dict[str, Any]

REASONING = "reasoning_content"
OTHER_NAMES = ("reasoning", "thinking", "thought")  # that templates have for it


def fit_history(messages: Sequence[Message], reading: TemplateReading) -> list[Message]:
    """The same history; what is there already stays."""
    fitted = [_with_reasoning(message, reading) for message in messages]
    if not any(_calls(message) or message.get("role") == "tool" for message in messages):
        return fitted
    fitted = _matched(fitted)
    if reading.id_length:
        fitted = [_with_short_ids(message, reading.id_length) for message in fitted]
    return list(_one_by_one(fitted)) if reading.first_call_only else fitted


def with_one_text(messages: Sequence[Message]) -> list[Message]:
    """For templates that take no text between a message's reasoning and its calls: it becomes reasoning."""
    return [_with_one_text(message) for message in messages]


def _with_one_text(message: Message) -> Message:
    names = [name for name in (REASONING, *OTHER_NAMES) if message.get(name)]
    content = message.get("content")
    if not names or not content or not isinstance(content, str) or not _calls(message):
        return message
    said = f"{message[names[0]]}\n\n{content}"
    return {**message, **dict.fromkeys(names, said), "content": ""}


def _with_reasoning(message: Message, reading: TemplateReading) -> Message:
    """What was thought, by the names that the template reads; as a part of the content where it wants it there."""
    thought = message.get(REASONING)
    if not thought or REASONING in reading.names:
        return message
    if "thinking" in reading.compared.get("type", ()) and isinstance(message.get("content"), str):
        parts = [{"type": "thinking", "thinking": thought}]
        if message["content"]:
            parts.append({"type": "text", "text": message["content"]})
        return {**message, "content": parts}
    return {**{name: thought for name in OTHER_NAMES if name in reading.names}, **message}


def _matched(messages: Sequence[Message]) -> list[Message]:
    """Every call with an id, every result with its call's id and name: not all clients send them.

    A result without an id is that of the first call yet unanswered, by its name if it has one.
    """
    matched: list[Message] = []
    waiting: dict[str, str] = {}  # names of calls that wait for their results, by id
    names: dict[str, str] = {}  # of all calls so far
    for number, message in enumerate(messages):
        if calls := _calls(message):
            calls = [{**call, "id": call.get("id") or f"call_{number}_{at}"} for at, call in enumerate(calls)]
            message = {**message, "tool_calls": calls}
            waiting = {str(call["id"]): _function_name(call) for call in calls}
            names |= waiting
        elif message.get("role") == "tool":
            id = message.get("tool_call_id") or _first_waiting(waiting, message.get("name"))
            waiting.pop(str(id), None)
            known = {"tool_call_id": id, "name": message.get("name") or names.get(str(id))}
            message = {**message, **{name: value for name, value in known.items() if value}}
        matched.append(message)
    return matched


def _first_waiting(waiting: Mapping[str, str], name: str | None) -> str | None:
    return next((id for id, called in waiting.items() if name in (None, called)), None)


def _with_short_ids(message: Message, length: int) -> Message:
    if calls := _calls(message):
        return {**message, "tool_calls": [{**call, "id": short_id(str(call["id"]), length)} for call in calls]}
    if message.get("role") == "tool":
        return {**message, "tool_call_id": short_id(str(message.get("tool_call_id") or ""), length)}
    return message


def short_id(id: str, length: int) -> str:
    """The id itself where it is of that many letters and digits; always the same one for one id."""
    if len(id) == length and re.fullmatch(r"[A-Za-z0-9]*", id):
        return id
    return hashlib.sha256(id.encode(errors="replace")).hexdigest()[:length]


def _one_by_one(messages: Sequence[Message]) -> Iterator[Message]:
    """Calls that were made together, each as a message of its own before its results."""
    at = 0
    while at < len(messages):
        message, at = messages[at], at + 1
        if len(calls := _calls(message)) < 2:
            yield message
            continue
        end = next((end for end in range(at, len(messages)) if messages[end].get("role") != "tool"), len(messages))
        yield from _apart(message, calls, messages[at:end])
        at = end


def _apart(message: Message, calls: Sequence[Message], results: Sequence[Message]) -> Iterator[Message]:
    rest = list(results)
    for call in calls:
        yield {**message, "tool_calls": [call]}
        yield from (result for result in rest if result.get("tool_call_id") == call["id"])
        rest = [result for result in rest if result.get("tool_call_id") != call["id"]]
        message = {"role": message.get("role"), "content": ""}
    yield from rest


def _calls(message: Message) -> list[Message]:
    """None at all where one of them is no object: what is odd is the template's to refuse."""
    calls = message.get("tool_calls")
    return calls if isinstance(calls, list) and all(isinstance(call, dict) for call in calls) else []


def _function_name(call: Mapping[str, Any]) -> str:
    function = call.get("function")
    return str(function.get("name") or "") if isinstance(function, dict) else ""
