"""JSON Schemas as llguidance grammars, and what of them cannot be enforced."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import orjson
from llguidance import LLMatcher

from atelier.errors import InvalidSchema
from atelier.submission import KEYWORD, MOST_KEYWORDS
from worker.engine.constraint.one_of import settle_one_of

PARAM = "response_format"
DEEPEST = 64  # levels
LONGEST = 2**20  # bytes
MOST_MULTIPLE = 100_000  # a lexer for multiples of n has n states, and llguidance makes them at once

# One space after a comma or a colon, as models write it: free white space lets small ones loop in it.
STYLE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# Unsupported keywords become warnings, whatever the schema's own x-guidance says.
LENIENT: Any = {"lenient": True}


def schema_grammar(schema: str) -> str:
    """The schema's grammar; InvalidSchema when it is too large or no schema at all."""
    schema = checked_schema(schema)
    try:
        grammar: str = LLMatcher.grammar_from_json_schema(schema, defaults=STYLE, overrides=LENIENT)
    except ValueError as error:
        raise InvalidSchema(f"The schema cannot be used: {one_line(str(error))}", param=PARAM) from None
    return grammar


def embedded_schema(schema: Mapping[str, Any]) -> str:
    """The schema for a place within a grammar, on one line; InvalidSchema when it is too large."""
    own = schema.get("x-guidance")
    style = {**STYLE, **(own if isinstance(own, dict) else {}), **LENIENT}
    return checked_schema(json.dumps({**schema, "x-guidance": style}, ensure_ascii=False))


def checked_schema(schema: str) -> str:
    """The schema with its unions settled; InvalidSchema when it is too large to be compiled."""
    parsed = _read(schema)
    if '"oneOf"' in schema:
        # The standard library's encoder: orjson refuses numbers of more than 64 bits, which a schema may have.
        schema = json.dumps(settle_one_of(json.loads(schema)), ensure_ascii=False)
    _check_multiples(parsed)
    return schema


def unenforced_keywords(warnings: list[str]) -> tuple[str, ...]:
    """The keywords that llguidance's warnings are about, each once."""
    found = {keyword: None for warning in warnings for keyword in _keywords(warning)}
    return tuple(found)[:MOST_KEYWORDS]


def _keywords(warning: str) -> list[str]:
    if warning.startswith("Unimplemented keys: "):
        return re.findall(KEYWORD, warning.removeprefix("Unimplemented keys: "))
    if warning.startswith("min/maxProperties"):
        return ["minProperties", "maxProperties"]
    if "format" in warning.lower():
        return ["format"]
    return re.findall(KEYWORD, warning)[:1]


def _read(schema: str) -> Any:
    if len(schema.encode()) > LONGEST:
        raise InvalidSchema(f"The schema is longer than {LONGEST} bytes.", param=PARAM)
    try:
        parsed = orjson.loads(schema)
    except orjson.JSONDecodeError as error:
        raise InvalidSchema(f"The schema is not JSON: {error}", param=PARAM) from None
    if _depth(parsed) > DEEPEST:
        raise InvalidSchema(f"The schema is nested deeper than {DEEPEST} levels.", param=PARAM)
    return parsed


def _depth(value: Any) -> int:
    """Levels of nesting, counted without recursion."""
    deepest, level = 0, [value]
    while level:
        children: list[Any] = []
        for node in level:
            children.extend(_children(node))
        deepest, level = deepest + 1, children
    return deepest


def _children(node: Any) -> Any:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _check_multiples(schema: Any) -> None:
    """Intersected, they are one multiple of all of them; llguidance takes seconds for a large one."""
    least = 1
    for number in _multiples(schema):
        least = math.lcm(least, _digits(number))
        if least > MOST_MULTIPLE:
            message = f"multipleOf: the least common multiple of all of them may be {MOST_MULTIPLE} at most."
            raise InvalidSchema(message, param=PARAM)


def _multiples(schema: Any) -> Iterator[float]:
    nodes = [schema]
    while nodes:
        node = nodes.pop()
        given = node.get("multipleOf") if isinstance(node, dict) else None
        if isinstance(given, int | float) and not isinstance(given, bool) and given:
            yield given
        nodes.extend(_children(node))


def _digits(number: float) -> int:
    """0.25 -> 25, 1000 -> 1000."""
    _, digits, exponent = Decimal(str(number)).as_tuple()
    significant = int("".join(map(str, digits)))
    return significant * 10**exponent if isinstance(exponent, int) and 0 < exponent < 20 else significant or 1


def one_line(message: str) -> str:
    """The first line's worth of llguidance's message, which quotes the grammar below it."""
    message = message.replace("<non-verbose/>", "").replace("NoExtensionBias", "no text could match it")
    return " ".join(message.split())[:300] or "no reason given"
