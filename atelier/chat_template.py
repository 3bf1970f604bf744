"""The model's chat template: Jinja in a sandbox, with limits, as Hugging Face's templates expect it."""

import datetime
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType, MappingProxyType
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from atelier.errors import InvalidTemplate
from atelier.tools import with_arguments_read

LONGEST_PROMPT = 16 * 2**20  # characters
LONGEST_TIME = 2.0  # seconds


class _Generation(Extension):
    """`{% generation %}` marks the assistant's part for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled template."""

    def __init__(self, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _now
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise InvalidTemplate(f"The chat template does not compile: {error}") from error

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
            **arguments,
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": True,
            "bos_token": bos,
            "eos_token": eos,
        }
        try:
            variables["messages"] = [_readable(message) for message in messages]
            with _deadline(LONGEST_TIME):
                return "".join(_bounded(self._template.generate(variables)))
        except InvalidTemplate:
            raise
        except Exception as error:  # a template may raise anything
            raise InvalidTemplate(f"The chat template refuses these messages: {error}", param="messages") from error


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
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().astimezone().strftime(form)
