"""Reads tool calls that are written as Python function calls: get_weather(city="Paris", days=[1, 2])."""

import ast
import json
import re

from worker.output.text_source import CompletionSource, Malformed, Reading

DEEPEST = 64  # levels of brackets
STEP = re.compile(r"""[^()\[\]{}"'#]+|(?P<quote>'''|\"\"\"|'|")|(?P<open>[(\[{])|(?P<close>[)\]}])|#""")
IN_STRING = re.compile(r"""[^\\'"]+|\\.|['"]""", re.DOTALL)
LITERALS = {"true": True, "false": False, "null": None, "none": None}
ATTEMPTS = (SyntaxError, ValueError, TypeError, MemoryError, RecursionError)  # what ast raises for unusual text


def read_call(source: CompletionSource) -> Reading[tuple[str, str]]:
    """A call up to its closing bracket: the function's name, and its arguments as JSON text."""
    start = source.at
    yield from source.name()
    yield from source.skip_space()
    if (yield from source.peek()) != "(":
        raise Malformed
    yield from _skip_brackets(source)
    return parse_call(source.text[start : source.at])


def parse_call(text: str) -> tuple[str, str]:
    """The function's name, and its arguments as JSON text. Raises Malformed unless all are named and literals."""
    try:
        call = ast.parse(text, mode="eval").body
        if isinstance(call, ast.Call) and _name(call.func) == "print" and len(call.args) == 1:
            call = call.args[0]  # Gemma prints the result that it asks for
        if not isinstance(call, ast.Call) or call.args or not (name := _name(call.func)):
            raise Malformed
        arguments = {given.arg: _literal(given.value) for given in call.keywords if given.arg}
        if len(arguments) < len(call.keywords):
            raise Malformed
        return name, json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    except ATTEMPTS:
        raise Malformed from None


def _name(function: ast.expr) -> str:
    return ast.unparse(function) if isinstance(function, ast.Name | ast.Attribute) else ""


def _literal(value: ast.expr) -> object:
    """A literal; also true, false and null, which models write out of habit from JSON."""
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


def _skip_brackets(source: CompletionSource) -> Reading[None]:
    """Skip from an opening bracket to the one that closes it. Brackets in strings do not count."""
    depth = 0
    while True:
        step = STEP.match(source.text, source.at)
        if step is None:
            yield from source.more()
            continue
        quote = step.group("quote")
        if quote and len(quote) == 1 and source.text.startswith(quote, step.end()):
            quote = yield from _opening_quotes(source, quote)
            if not quote:
                continue
        elif quote and step.end() == len(source.text) and not source.ended:
            yield None  # it may be the first of three
            continue
        else:
            source.at = step.end()
        if quote:
            yield from _skip_string(source, quote)
            continue
        depth += bool(step.group("open")) - bool(step.group("close"))
        if depth > DEEPEST:
            raise Malformed
        if depth == 0:
            return


def _opening_quotes(source: CompletionSource, quote: str) -> Reading[str]:
    """Skip two quotes or three: the three that begin a string, or "" after an empty string."""
    found = yield from source.take(quote * 2, quote * 3)
    return found if len(found) == 3 else ""


def _skip_string(source: CompletionSource, quote: str) -> Reading[None]:
    """Skip the rest of a string and its closing quotes."""
    while True:
        step = IN_STRING.match(source.text, source.at)
        if step is None:
            yield from source.more()
        elif step.group() != quote[0]:
            source.at = step.end()
        elif (yield from source.take(quote)):
            return
        else:
            source.at += 1
