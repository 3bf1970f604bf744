"""JSON Schemas as llguidance grammars, and the keywords that cannot be enforced."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

import orjson
from llguidance import LLMatcher

from atelier.errors import InvalidSchema
from atelier.json_types import Json
from atelier.submission import KEYWORD, MOST_KEYWORDS
from worker.engine.constraint.one_of import rewrite_one_of

PARAM = "response_format"
DEEPEST = 64  # levels
LONGEST = 2**20  # bytes
MOST_MULTIPLE = 100_000  # a lexer for multiples of n has n states, which llguidance creates at once

# One space after a comma or a colon, as models write it: where any white space is allowed, small models loop in it.
STYLE: Json = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# Unsupported keywords are warnings, even if the schema's own x-guidance says otherwise.
LENIENT: Json = {"lenient": True}


def schema_grammar(schema: str) -> str:
    """The schema's grammar. Raises InvalidSchema when the schema is too large or not valid."""
    schema = checked_schema(schema)
    try:
        grammar: str = LLMatcher.grammar_from_json_schema(schema, defaults=STYLE, overrides=LENIENT)
    except ValueError as error:
        raise InvalidSchema(f"The schema cannot be used: {one_line(str(error))}", param=PARAM) from None
    return grammar


def embedded_schema(schema: Mapping[str, object]) -> str:
    """The schema on one line, for use within a grammar. Raises InvalidSchema when it is too large."""
    own = schema.get("x-guidance")
    style = {**STYLE, **(own if isinstance(own, dict) else {}), **LENIENT}
    return checked_schema(json.dumps({**schema, "x-guidance": style}, ensure_ascii=False))


def checked_schema(schema: str) -> str:
    """The schema with its disjoint unions rewritten. Raises InvalidSchema when it is too large to compile."""
    parsed = _read(schema)
    if '"oneOf"' in schema:
        # The standard library's encoder: orjson rejects integers of more than 64 bits, which a schema may have.
        schema = json.dumps(rewrite_one_of(json.loads(schema)), ensure_ascii=False)
    _check_multiples(parsed)
    return schema


def unenforced_keywords(warnings: list[str]) -> tuple[str, ...]:
    """The keywords in llguidance's warnings, without duplicates."""
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


def _read(schema: str) -> object:
    if len(schema.encode()) > LONGEST:
        raise InvalidSchema(f"The schema is longer than {LONGEST} bytes.", param=PARAM)
    try:
        parsed = orjson.loads(schema)
    except orjson.JSONDecodeError as error:
        raise InvalidSchema(f"The schema is not JSON: {error}", param=PARAM) from None
    if _depth(parsed) > DEEPEST:
        raise InvalidSchema(f"The schema is nested deeper than {DEEPEST} levels.", param=PARAM)
    return parsed


def _depth(value: object) -> int:
    """The number of levels, counted without recursion."""
    deepest, level = 0, [value]
    while level:
        level = [child for node in level for child in _children(node)]
        deepest += 1
    return deepest


def _children(node: object) -> Iterable[object]:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _check_multiples(schema: object) -> None:
    """Values of multipleOf may combine into their least common multiple. llguidance takes seconds for a large one."""
    least = 1
    for number in _multiples(schema):
        least = math.lcm(least, _digits(number))
        if least > MOST_MULTIPLE:
            message = f"multipleOf: the least common multiple of all of them must be at most {MOST_MULTIPLE}."
            raise InvalidSchema(message, param=PARAM)


def _multiples(schema: object) -> Iterator[float]:
    nodes = [schema]
    while nodes:
        node = nodes.pop()
        given = node.get("multipleOf") if isinstance(node, dict) else None
        if isinstance(given, int | float) and not isinstance(given, bool) and given:
            yield given
        nodes.extend(_children(node))


def _digits(number: float) -> int:
    """The number without its decimal point: 0.25 -> 25, 1000 -> 1000."""
    _, digits, exponent = Decimal(str(number)).as_tuple()
    significant = int("".join(map(str, digits)))
    return significant * 10**exponent if isinstance(exponent, int) and 0 < exponent < 20 else significant or 1


def one_line(message: str) -> str:
    """The beginning of llguidance's message, which goes on to quote the grammar, as one line."""
    message = message.replace("<non-verbose/>", "").replace("NoExtensionBias", "no text could match it")
    return " ".join(message.split())[:300] or "no reason given"
