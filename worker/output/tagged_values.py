"""Arguments between marks of their own: <parameter=city>Paris</parameter>, with or without the value's type."""

from collections.abc import Mapping
from typing import Any

from worker.output.format_types import MarkedCall, TypedCall
from worker.output.plain_values import typed_json
from worker.output.text_source import LONGEST_NAME, Reading, Source


def read_argument(source: Source, marks: MarkedCall, parameters: Mapping[str, Any]) -> Reading[tuple[str, str]]:
    """A parameter whose first mark was read, and its value as JSON text."""
    name, is_string = yield from _key(source, marks)
    value = yield from _value(source, marks)
    if marks.value_after.startswith("\n"):
        value = value.removeprefix("\n").removesuffix("\n")
    return name, typed_json(value, name, parameters, is_string)


def _key(source: Source, marks: MarkedCall) -> Reading[tuple[str, bool | None]]:
    """The parameter's name, and whether its value is said to be a string."""
    if not isinstance(marks, TypedCall):
        first, *between = marks.key_after.split()
        name = yield from source.until(first, LONGEST_NAME)
        yield from source.expect_all(between)
        return name, None
    quote = marks.type_before.split()[0]
    name = yield from source.until(quote, LONGEST_NAME)
    source.at -= len(quote)
    said = (yield from source.until(marks.key_after, LONGEST_NAME)).split("=")[-1].strip(quote)
    return name, said == dict(marks.types)["string"] if said else None


def _value(source: Source, marks: MarkedCall) -> Reading[str]:
    opening, closing = marks.raw
    end = marks.value_after.split()[0]
    if not opening or not (yield from source.starts(opening)):
        return (yield from source.until(end))
    value = yield from source.until(closing)
    yield from source.space()
    yield from source.expect(end)
    return value
