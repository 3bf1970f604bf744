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
from atelier.json_types import Json
from atelier.submission import with_arguments_read
from atelier.templates.template_adaptation import REASONING, adapt_arguments, adapt_messages
from atelier.templates.template_fallbacks import fallbacks, with_system_in_last_turn
from atelier.templates.template_reading import read_template

LONGEST_PROMPT = 16 * 2**20  # characters
LONGEST_TIME = 2.0  # seconds
PROBE = "qzxv"  # a word that occurs in no prompt
TEXTS = {"functions", "datetime"}  # variables of templates that take texts instead of tools
LIST_CHANGES = {"append", "pop"}


class _Generation(Extension):
    """`{% generation %}` marks the assistant's part for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Immutable but for the ends of lists: some templates use lists as queues. Those render a copy of the messages."""

    changes_lists = False

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
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
            self.reading = read_template(tree)
            self._template = environment.from_string(tree)
            self._source = source
        except jinja2.TemplateError as error:
            raise InvalidTemplate(f"The chat template does not compile: {error}") from error
        self._changes_lists = environment.changes_lists = not LIST_CHANGES.isdisjoint(self.reading.names)

    def render(
        self,
        messages: list[Json],
        *,
        bos: str,
        eos: str,
        tools: Sequence[Mapping[str, object]] | None = None,
        arguments: Mapping[str, object] = MappingProxyType({}),
        generation_prompt: bool = True,
    ) -> str:
        """The prompt, up to where the assistant's answer begins; without `generation_prompt`, up to the last message.

        `tools`: definitions in OpenAI's form; None: no tools. `arguments`: further variables for the template.
        Raises InvalidTemplate when the template fails, writes more than 16 Mi characters or takes over 2 s.
        """
        variables: Json = {
            **(_texts(tools) if self.reading.variables >= TEXTS else {}),
            **(adapt_arguments(arguments, self.reading, self._source) if arguments else {}),
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": generation_prompt,
            "bos_token": bos,
            "eos_token": eos,
        }
        try:
            readable = list(map(_readable, messages))
            if any(map(_needs_adaptation, messages)):
                readable = adapt_messages(readable, self.reading)
            variables["messages"] = readable
            return self._with_system(variables, self._write(variables))
        except InvalidTemplate:
            raise
        except Exception as error:  # a template may raise anything
            for other in fallbacks(variables, error):
                with suppress(Exception):
                    return self._write(other)
            raise InvalidTemplate(f"The chat template rejected these messages: {error}", param="messages") from error

    def _with_system(self, variables: Json, text: str) -> str:
        """The prompt rendered again if it lacks the system message.

        Mistral Nemo's template writes it with the last user message, and only if that is the last message of all, so
        that it is lost after a tool's result and before an answer that is continued. Templates that only change its
        words still write the probe.
        """
        messages = variables["messages"]
        system = messages[0].get("content") if messages and messages[0].get("role") == "system" else None
        if not isinstance(system, str) or system.strip() in text or messages[-1].get("role") == "user":
            return text
        if PROBE in self._write({**variables, "messages": [{**messages[0], "content": PROBE}, *messages[1:]]}):
            return text
        return self._write({**variables, "messages": with_system_in_last_turn(messages)})

    def _write(self, variables: Json) -> str:
        given = copy.deepcopy(variables) if self._changes_lists else variables
        with _deadline(LONGEST_TIME):
            return "".join(_bounded(self._template.generate(given)))


def _texts(tools: Sequence[Mapping[str, object]] | None) -> dict[str, str]:
    """What FireFunction's template takes instead of tools."""
    functions = [tool["function"] for tool in tools or ()]
    return {"functions": _to_json(functions, indent=4), "datetime": _now("%Y-%m-%d %H:%M:%S %Z")}


def _bounded(pieces: Iterator[str]) -> Iterator[str]:
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > LONGEST_PROMPT:
            raise InvalidTemplate("The chat template wrote more than 16 Mi characters.")
        yield piece


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Stop the block's Python code after some time, even in loops that write nothing.

    Only the interpreter's trace hook is called inside every loop; a template has few lines, so its cost is negligible.
    """
    end = time.monotonic() + seconds

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if time.monotonic() > end:
            raise InvalidTemplate("The chat template took longer than 2 s.")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def _readable(message: Json) -> Json:
    """As templates expect it: a content of text parts as one string, a call's arguments as an object."""
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        message = {**message, "content": "".join(part.get("text", "") for part in content)}
    elif content is None and (calls or "content" in message):
        message = {**message, "content": ""}
    if isinstance(calls, list):
        read = [with_arguments_read(call) if isinstance(call, dict) else call for call in calls]
        message = {**message, "tool_calls": read}
    return message


def _needs_adaptation(message: Json) -> bool:
    return message.get("role") == "tool" or bool(message.get("tool_calls") or message.get(REASONING))


def _to_json(value: object, indent: int | None = None, *, ensure_ascii: bool = False, **options: Any) -> str:
    """The filter `tojson`. Jinja's own escapes for HTML."""
    if isinstance(value, Iterator):  # of a filter
        value = list(value)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().astimezone().strftime(form)
