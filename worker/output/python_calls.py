"""Tool calls as Python writes function calls: get_weather(city="Paris", days=[1, 2])."""

import ast
import json
import re
from typing import Any

from worker.output.text_source import Malformed, Reading, Source

DEEPEST = 64  # brackets within brackets
STEP = re.compile(r"""[^()\[\]{}"'#]+|(?P<quote>'''|\"\"\"|'|")|(?P<open>[(\[{])|(?P<close>[)\]}])|#""")
IN_STRING = re.compile(r"""[^\\'"]+|\\.|['"]""", re.DOTALL)
LITERALS = {"true": True, "false": False, "null": None, "none": None}
ATTEMPTS = (SyntaxError, ValueError, TypeError, MemoryError, RecursionError)


def read_call(source: Source) -> Reading[tuple[str, str]]:
    """A call from here to its closing bracket: the function's name, and its arguments as JSON text."""
    start = source.at
    yield from source.name()
    yield from source.space()
    if (yield from source.peek()) != "(":
        raise Malformed
    yield from _brackets(source)
    return parse_call(source.text[start : source.at])


def parse_call(text: str) -> tuple[str, str]:
    """Malformed when it is no call of a function with named arguments that are literals."""
    try:
        call: Any = ast.parse(text, mode="eval").body
        if isinstance(call, ast.Call) and _name(call.func) == "print" and len(call.args) == 1:
            call = call.args[0]  # Gemma's way to ask for the result
        if not isinstance(call, ast.Call) or call.args or not (name := _name(call.func)):
            raise Malformed
        arguments = {str(given.arg): _literal(given.value) for given in call.keywords if given.arg}
        if len(arguments) < len(call.keywords):
            raise Malformed
        return name, json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    except ATTEMPTS:
        raise Malformed from None


def _name(function: ast.expr) -> str:
    return ast.unparse(function) if isinstance(function, ast.Name | ast.Attribute) else ""


def _literal(value: ast.expr) -> Any:
    """With true, false and null too, which models take from JSON."""
    match value:
        case ast.Name(name) if name.lower() in LITERALS:
            return LITERALS[name.lower()]
        case ast.List(items) | ast.Tuple(items):
            return [_literal(item) for item in items]
        case ast.Dict(keys, values):
            return {_key(key): _literal(item) for key, item in zip(keys, values, strict=True)}
    return ast.literal_eval(value)


def _key(key: ast.expr | None) -> str:
    if isinstance(key, ast.Constant) and isinstance(key.value, str):
        return key.value
    raise Malformed


def _brackets(source: Source) -> Reading[None]:
    """From an opening bracket to its partner; brackets in strings do not count."""
    depth = 0
    while True:
        step = STEP.match(source.text, source.at)
        if step is None:
            yield from source.more()
            continue
        quote = step.group("quote")
        if quote and len(quote) == 1 and source.text.startswith(quote, step.end()):
            quote = yield from _quotes(source, quote)
            if not quote:
                continue
        elif quote and step.end() == len(source.text) and not source.ended:
            yield None  # it may be the first of three
            continue
        else:
            source.at = step.end()
        if quote:
            yield from _string(source, quote)
            continue
        depth += bool(step.group("open")) - bool(step.group("close"))
        if depth > DEEPEST:
            raise Malformed
        if depth == 0:
            return


def _quotes(source: Source, quote: str) -> Reading[str]:
    """At two quotes: the three that begin a string, or "" after an empty one."""
    found = yield from source.starts(quote * 2, quote * 3)
    return found if len(found) == 3 else ""


def _string(source: Source, quote: str) -> Reading[None]:
    """To the end of a string, past its quotes."""
    while True:
        step = IN_STRING.match(source.text, source.at)
        if step is None:
            yield from source.more()
        elif step.group() != quote[0]:
            source.at = step.end()
        elif (yield from source.starts(quote)):
            return
        else:
            source.at += 1
