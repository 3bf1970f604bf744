"""Messages and arguments as one template expects them: its names for reasoning, its ids, its switches. Pure."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from atelier.json_types import Json
from atelier.templates.template_reading import TemplateReading

REASONING = "reasoning_content"
OTHER_NAMES = ("reasoning", "thinking", "thought")  # of the same in other templates

SWITCHES = ("enable_thinking", "thinking", "reasoning")  # true or false
MODE = "thinking_mode"  # enabled or disabled
BUDGET = "thinking_budget"  # tokens; 0: none
EFFORTS = ("reasoning_effort", "thinking_effort", "reasoning_strength")
RANKS = {"none": 0, "no_think": 0, "minimal": 1, "low": 2, "medium": 3, "high": 4, "xhigh": 5, "max": 6}
NONE, USUAL = "none", "medium"
LOW = RANKS["low"]
NEAR = {"minimal": ("low",), "xhigh": ("high",), "max": ("xhigh", "high")}  # for templates without that extreme
WRITTEN = (("<|channel|>", frozenset({"low", "medium", "high"})),)
"""Marks of templates that write any effort unchecked, and the efforts their models were trained with: gpt-oss's."""


def adapt_messages(messages: Sequence[Json], reading: TemplateReading) -> list[Json]:
    """The same messages under the names that the template reads. What a message already has is kept."""
    adapted = [_with_reasoning(message, reading) for message in messages]
    if not any(_calls(message) or message.get("role") == "tool" for message in messages):
        return adapted
    adapted = _matched(adapted)
    if reading.id_length:
        adapted = [_with_short_ids(message, reading.id_length) for message in adapted]
    return list(_one_by_one(adapted)) if reading.first_call_only else adapted


def _with_reasoning(message: Json, reading: TemplateReading) -> Json:
    """Reasoning under the names that the template reads, or as a part of the content where it expects that."""
    thought = message.get(REASONING)
    if not thought or REASONING in reading.names:
        return message
    if "thinking" in reading.compared.get("type", ()) and isinstance(message.get("content"), str):
        parts = [{"type": "thinking", "thinking": thought}]
        if message["content"]:
            parts.append({"type": "text", "text": message["content"]})
        return {**message, "content": parts}
    return {**{name: thought for name in OTHER_NAMES if name in reading.names}, **message}


def _matched(messages: Sequence[Json]) -> list[Json]:
    """Every call with an id, every result with its call's id and name: not all clients send them.

    A result without an id belongs to the first call without a result, of the same name if it has one.
    """
    matched: list[Json] = []
    waiting: dict[str, str] = {}  # names of calls without a result, by id
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


def _with_short_ids(message: Json, length: int) -> Json:
    if calls := _calls(message):
        return {**message, "tool_calls": [{**call, "id": short_id(str(call["id"]), length)} for call in calls]}
    if message.get("role") == "tool":
        return {**message, "tool_call_id": short_id(str(message.get("tool_call_id") or ""), length)}
    return message


def short_id(id: str, length: int) -> str:
    """An id of that many letters and digits: the id itself if it is one, otherwise a digest of it."""
    if len(id) == length and re.fullmatch(r"[A-Za-z0-9]*", id):
        return id
    return hashlib.sha256(id.encode(errors="replace")).hexdigest()[:length]


def _one_by_one(messages: Sequence[Json]) -> Iterator[Json]:
    """Each of a message's calls as a message of its own, followed by its results."""
    at = 0
    while at < len(messages):
        message, at = messages[at], at + 1
        if len(calls := _calls(message)) < 2:
            yield message
            continue
        end = next((end for end in range(at, len(messages)) if messages[end].get("role") != "tool"), len(messages))
        yield from _apart(message, calls, messages[at:end])
        at = end


def _apart(message: Json, calls: Sequence[Json], results: Sequence[Json]) -> Iterator[Json]:
    rest = list(results)
    for call in calls:
        yield {**message, "tool_calls": [call]}
        yield from (result for result in rest if result.get("tool_call_id") == call["id"])
        rest = [result for result in rest if result.get("tool_call_id") != call["id"]]
        message = {"role": message.get("role"), "content": ""}
    yield from rest


def _calls(message: Json) -> list[Json]:
    """The message's tool calls; none if one of them is not an object: the template then rejects them itself."""
    calls = message.get("tool_calls")
    return calls if isinstance(calls, list) and all(isinstance(call, dict) for call in calls) else []


def _function_name(call: Mapping[str, object]) -> str:
    function = call.get("function")
    return str(function.get("name") or "") if isinstance(function, dict) else ""


def adapt_arguments(given: Mapping[str, object], reading: TemplateReading, source: str) -> Json:
    """The arguments, with whether and how much to reason under all names that the template reads.

    An effort that the template does not accept becomes the next higher one that it does, or its highest.
    """
    on = next((value for name in SWITCHES if isinstance(value := given.get(name), bool)), None)
    effort = next((given[name] for name in EFFORTS if isinstance(given.get(name), str)), None)
    if on is None and effort is None:
        return dict(given)
    others: Json = _switches(on if on is not None else effort != NONE)
    for name in EFFORTS:
        others[name] = _effort(given.get(name, effort), on, name, reading, source)
    added = {name: value for name, value in others.items() if name in reading.variables and value is not None}
    return {**added, **given, **{name: value for name, value in added.items() if name in EFFORTS}}


def _switches(on: bool) -> Json:
    return {**dict.fromkeys(SWITCHES, on), MODE: "enabled" if on else "disabled", **({} if on else {BUDGET: 0})}


def _effort(effort: object, on: bool | None, name: str, reading: TemplateReading, source: str) -> object:
    """None: the template's own default."""
    if not isinstance(effort, str | None):
        return effort
    accepted = _ranked(reading.demanded.get(name) or _written(source))
    compared = reading.compared.get(name, frozenset())
    if reading.variables.isdisjoint((*SWITCHES, MODE)):
        effort = _switched(effort, on, accepted or _ranked(compared))
    if effort not in RANKS or not accepted:
        return next((value for value in (effort, *NEAR.get(effort or "", ())) if value in compared), effort)
    return next((value for value in accepted if RANKS[value] >= RANKS[effort]), accepted[-1])


def _switched(effort: str | None, on: bool | None, known: Sequence[str]) -> str | None:
    """Where the effort is the only switch. `known`: the efforts that the template distinguishes, lowest first."""
    lowest = RANKS[known[0]] if known else RANKS[USUAL]
    if (effort == NONE or on is False) and lowest <= LOW:
        return known[0]
    return USUAL if effort is None and on and lowest == 0 else effort


def _written(source: str) -> Iterable[str]:
    return next((values for mark, values in WRITTEN if mark in source), ())


def _ranked(values: Iterable[str]) -> list[str]:
    return sorted((value for value in values if value in RANKS), key=RANKS.__getitem__)
