"""The model's chat template: Jinja in a sandbox, with limits, as Hugging Face's templates expect it."""

import copy
import datetime
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType, MappingProxyType
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from atelier.errors import InvalidTemplate
from atelier.templates.template_history import fit_history, with_one_text
from atelier.templates.template_reading import read_template
from atelier.templates.template_switches import fit_arguments
from atelier.templates.template_tools import described
from atelier.templates.template_turns import other_turns, with_system_in_last_turn
from atelier.tools import with_arguments_read

LONGEST_PROMPT = 16 * 2**20  # characters
LONGEST_TIME = 2.0  # seconds
PROBE = "qzxv"  # a word that is in no prompt
TEXTS = {"functions", "datetime"}  # what a template reads that takes texts in place of tools
LIST_CHANGES = {"append", "pop"}


class _Generation(Extension):
    """`{% generation %}` marks the assistant's part for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Immutable but for the ends of lists, in which some templates keep queues: those are given a copy."""

    changes_lists = False

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        changes = self.changes_lists and isinstance(obj, list) and attr in LIST_CHANGES
        return changes or super().is_safe_attribute(obj, attr, value)


class ChatTemplate:
    """A compiled template."""

    def __init__(self, source: str) -> None:
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _now
        try:
            tree = environment.parse(source)
            self._reading = read_template(tree)
            self._template = environment.from_string(tree)
            self._source = source
        except jinja2.TemplateError as error:
            raise InvalidTemplate(f"The chat template does not compile: {error}") from error
        self._changes_lists = environment.changes_lists = not LIST_CHANGES.isdisjoint(self._reading.names)

    def render(
        self,
        messages: list[dict[str, Any]],
        *,
        bos: str,
        eos: str,
        tools: Sequence[Mapping[str, Any]] | None = None,
        arguments: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """The prompt, ending where the assistant begins to speak.

        `tools`: definitions of functions, None where there are none. `arguments`: what else the template is given.
        """
        variables: dict[str, Any] = {
            **(_texts(tools) if self._reading.variables >= TEXTS else {}),
            **fit_arguments(arguments, self._reading, self._source),
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": True,
            "bos_token": bos,
            "eos_token": eos,
        }
        try:
            variables["messages"] = fit_history(list(map(_readable, messages)), self._reading)
            return self._with_system(variables, self._write(variables))
        except InvalidTemplate:
            raise
        except Exception as error:  # a template may raise anything
            for other in _otherwise(variables, error):
                with suppress(Exception):
                    return self._write(other)
            raise InvalidTemplate(f"The chat template refuses these messages: {error}", param="messages") from error

    def _with_system(self, variables: dict[str, Any], text: str) -> str:
        """Again where the system message is lost, as in Mistral Nemo's after a tool's result: it writes it with the
        user's last message, if that is the last of all. Templates that change its words have not lost it.
        """
        messages = variables["messages"]
        system = messages[0].get("content") if messages and messages[0].get("role") == "system" else None
        if not isinstance(system, str) or system.strip() in text or messages[-1].get("role") != "tool":
            return text
        if PROBE in self._write({**variables, "messages": [{**messages[0], "content": PROBE}, *messages[1:]]}):
            return text
        return self._write({**variables, "messages": with_system_in_last_turn(messages)})

    def _write(self, variables: dict[str, Any]) -> str:
        given = copy.deepcopy(variables) if self._changes_lists else variables
        with _deadline(LONGEST_TIME):
            return "".join(_bounded(self._template.generate(given)))


def _texts(tools: Sequence[Mapping[str, Any]] | None) -> dict[str, str]:
    """What FireFunction's template takes in place of tools."""
    functions = [tool["function"] for tool in tools or ()]
    return {"functions": _to_json(functions, indent=4), "datetime": _now("%Y-%m-%d %H:%M:%S %Z")}


def _otherwise(variables: dict[str, Any], error: Exception) -> Iterator[dict[str, Any]]:
    """For templates that take less than they are given, or need more: what may be tried after this error."""
    messages, tools = variables["messages"], variables["tools"]
    match error:
        case TypeError():
            if tools is None:
                yield {name: value for name, value in variables.items() if name != "tools"}
            yield {**variables, "messages": [_with_texts(message) for message in messages]}
        case jinja2.UndefinedError() if tools is not None:
            yield {**variables, "tools": [described(tool) for tool in tools]}
        case jinja2.TemplateError():
            if (said := with_one_text(messages)) != messages:
                yield {**variables, "messages": said}
            for turns in other_turns(messages):
                yield {**variables, "messages": turns}


def _with_texts(message: dict[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    return {**message, "tool_calls": list(map(_with_text, calls))} if isinstance(calls, list) else message


def _with_text(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), dict):
        return call
    return {**call, "function": {**function, "arguments": _to_json(function["arguments"])}}


def _bounded(pieces: Iterator[str]) -> Iterator[str]:
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > LONGEST_PROMPT:
            raise InvalidTemplate("The chat template writes too much.")
        yield piece


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """End the block's Python code after some time, even loops that write nothing.

    The interpreter's trace hook is the one thing that is called inside of any loop; a template has
    few lines, so what it costs does not show.
    """
    end = time.monotonic() + seconds

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > end:
            raise InvalidTemplate("The chat template takes too long.")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def _readable(message: dict[str, Any]) -> dict[str, Any]:
    """As templates expect it: a content of text parts as one string, a call's arguments as an object."""
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        message = {**message, "content": "".join(part.get("text", "") for part in content)}
    elif content is None and (calls or "content" in message):
        message = {**message, "content": ""}
    if isinstance(calls, list):
        message = {**message, "tool_calls": [with_arguments_read(call) for call in calls]}
    return message


def _to_json(value: Any, indent: int | None = None, *, ensure_ascii: bool = False, **options: Any) -> str:
    """Jinja's own would escape for HTML."""
    if isinstance(value, Iterator):  # of a filter
        value = list(value)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().astimezone().strftime(form)
