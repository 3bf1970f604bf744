"""Values as Gemma writes them: {city:<|"|>Paris<|"|>,days:3}. JSON, but for bare keys and strings between marks."""

import json
import re

from worker.output.json_text import LITERALS, NUMBER
from worker.output.text_source import LONGEST_NAME, Malformed, Reading, Source

DEEPEST = 64  # objects and lists within one another
LONGEST_WORD = 4000  # characters of a value without marks
KEY = re.compile(r"[^\s,:{}\[\]<>\"]+")
WORD = re.compile(r"[^,:{}\[\]<>\"]*")


def read_key(source: Source, quote: str) -> Reading[str]:
    """A key with its colon, as JSON text."""
    if (yield from source.starts(quote)):
        key = json.dumps((yield from source.until(quote, LONGEST_NAME)), ensure_ascii=False)
    elif (yield from source.peek()) == '"':
        key = yield from source.json(LONGEST_NAME)
    else:
        bare = (yield from source.until(":", LONGEST_NAME)).strip()
        if not KEY.fullmatch(bare):
            raise Malformed
        return json.dumps(bare, ensure_ascii=False)
    yield from source.space()
    yield from source.expect(":")
    return key


def read_value(source: Source, quote: str, depth: int = 0) -> Reading[str]:
    """A value, whole, as JSON text. A word that is no number and no literal is a string without its marks."""
    yield from source.space()
    char = yield from source.peek()
    if (yield from source.starts(quote)):
        return json.dumps((yield from source.until(quote)), ensure_ascii=False)
    if char == '"':
        return (yield from source.json())
    if char not in "{[":
        return (yield from _word(source))
    if depth == DEEPEST:
        raise Malformed
    source.at += 1
    members: list[str] = []
    closing = "}" if char == "{" else "]"
    while not (yield from ended(source, closing, first=not members)):
        key = f"{(yield from read_key(source, quote))}: " if char == "{" else ""
        members.append(key + (yield from read_value(source, quote, depth + 1)))
    return f"{char}{', '.join(members)}{closing}"


def ended(source: Source, closing: str, *, first: bool) -> Reading[bool]:
    """Whether the object or list ends here, and pass over its bracket; otherwise over the comma before a member."""
    yield from source.space()
    if (yield from source.starts(closing)):
        return True
    if not first:
        yield from source.expect(",")
        yield from source.space()
    return False


def _word(source: Source) -> Reading[str]:
    start = source.at
    while (end := WORD.match(source.text, start).end()) == len(source.text):  # type: ignore[union-attr]  # it always matches
        if end - start > LONGEST_WORD:
            raise Malformed
        yield from source.more()
    source.at = end
    word = source.text[start:end].strip()
    if not word:
        raise Malformed
    literal = "null" if word == "None" else word.lower()
    if literal in LITERALS:
        return literal
    return word if NUMBER.fullmatch(word) else json.dumps(word, ensure_ascii=False)
