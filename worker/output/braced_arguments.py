"""Reads arguments as Gemma writes them, {city:<|"|>Paris<|"|>,days:3}: JSON with bare keys and marked strings."""

import json
import re

from worker.output.json_text import LITERALS, NUMBER
from worker.output.text_source import LONGEST_NAME, CompletionSource, Malformed, Reading

DEEPEST = 64  # levels of objects and lists
LONGEST_WORD = 4000  # characters of a value without marks
KEY = re.compile(r"[^\s,:{}\[\]<>\"]+")
WORD = re.compile(r"[^,:{}\[\]<>\"]*")


def read_key(source: CompletionSource, quote: str) -> Reading[str]:
    """A key, as JSON text. Skips its colon."""
    if (yield from source.take(quote)):
        key = json.dumps((yield from source.until(quote, LONGEST_NAME)), ensure_ascii=False)
    elif (yield from source.peek()) == '"':
        key = yield from source.json(LONGEST_NAME)
    else:
        bare = (yield from source.until(":", LONGEST_NAME)).strip()
        if not KEY.fullmatch(bare):
            raise Malformed
        return json.dumps(bare, ensure_ascii=False)
    yield from source.skip_space()
    yield from source.expect(":")
    return key


def read_value(source: CompletionSource, quote: str, depth: int = 0) -> Reading[str]:
    """A whole value, as JSON text. A word that is neither number nor literal is a string that lacks its marks."""
    yield from source.skip_space()
    char = yield from source.peek()
    if (yield from source.take(quote)):
        return json.dumps((yield from source.until(quote)), ensure_ascii=False)
    if char == '"':
        return (yield from source.json())
    if char not in "{[":
        return (yield from _read_word(source))
    if depth == DEEPEST:
        raise Malformed
    source.at += 1
    members: list[str] = []
    closing = "}" if char == "{" else "]"
    while not (yield from at_end(source, closing, first=not members)):
        key = f"{(yield from read_key(source, quote))}: " if char == "{" else ""
        members.append(key + (yield from read_value(source, quote, depth + 1)))
    return f"{char}{', '.join(members)}{closing}"


def at_end(source: CompletionSource, closing: str, *, first: bool) -> Reading[bool]:
    """Whether the object or list ends here. Skips its closing bracket, or else the comma before its next member."""
    yield from source.skip_space()
    if (yield from source.take(closing)):
        return True
    if not first:
        yield from source.expect(",")
        yield from source.skip_space()
    return False


def _read_word(source: CompletionSource) -> Reading[str]:
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
