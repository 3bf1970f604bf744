"""Reads arguments between tags, and makes JSON of them by the types in the tool's schema.

Tagged: <parameter=city>Paris</parameter>, in some families with the value's type beside the name.
Nested, as MiniMax M3 writes them: <days><item>1</item><item>2</item></days>, with a mark before each tag.
"""

import json

from worker.output.family_format import NestedCall, TaggedCall, TypedCall
from worker.output.json_text import JsonText
from worker.output.parameter_schema import Schema, item_schema, member_schema, possible_types
from worker.output.text_source import LONGEST_NAME, CompletionSource, Malformed, Reading

DEEPEST = 64  # levels of tags
ITEM = "item"  # the tag of a list's members


def read_tagged(source: CompletionSource, form: TaggedCall, parameters: Schema) -> Reading[tuple[str, str]]:
    """An argument whose first mark was read: its name, and its value as JSON text."""
    name, is_string = yield from _read_key(source, form)
    value = yield from _read_text(source, form)
    if form.value_after.startswith("\n"):
        value = value.removeprefix("\n").removesuffix("\n")
    return name, as_json(value, member_schema(parameters, name, parameters), parameters, is_string)


def _read_key(source: CompletionSource, form: TaggedCall) -> Reading[tuple[str, bool | None]]:
    """The argument's name, and whether the model says that its value is a string; None if it does not say."""
    if not isinstance(form, TypedCall):
        first, *between = form.key_after.split()
        name = yield from source.until(first, LONGEST_NAME)
        yield from source.expect_all(between)
        return name, None
    quote = form.type_before.split()[0]
    name = yield from source.until(quote, LONGEST_NAME)
    source.at -= len(quote)
    type = (yield from source.until(form.key_after, LONGEST_NAME)).split("=")[-1].strip(quote)
    return name, type == dict(form.types)["string"] if type else None


def _read_text(source: CompletionSource, form: TaggedCall) -> Reading[str]:
    opening, closing = form.raw
    end = form.value_after.split()[0]
    if not opening or not (yield from source.take(opening)):
        return (yield from source.until(end))
    value = yield from source.until(closing)
    yield from source.skip_space()
    yield from source.expect(end)
    return value


def read_nested(source: CompletionSource, form: NestedCall, parameters: Schema) -> Reading[tuple[str, str]]:
    """An argument whose tag's opening bracket was read: its name, and its value as JSON text."""
    name = yield from _read_tag(source)
    schema = member_schema(parameters, name, parameters)
    return name, (yield from _read_element(source, form.mark, name, schema, parameters))


def _read_tag(source: CompletionSource) -> Reading[str]:
    """The name in a tag whose opening bracket was read."""
    name = yield from source.until(">", LONGEST_NAME)
    if not name or name != name.strip() or name.startswith("/") or "<" in name:
        raise Malformed
    return name


def _read_element(
    source: CompletionSource, mark: str, tag: str, schema: object, root: Schema, depth: int = 0
) -> Reading[str]:
    """A value as JSON text. Skips its closing tag. `root`: the schema that references are resolved in."""
    if depth == DEEPEST:
        raise Malformed
    closing = f"</{tag}>"
    text = yield from source.until(mark)
    if (yield from source.take_one(closing, "<")) == closing:
        return _leaf(text, schema, root)
    if text.strip():
        raise Malformed
    members: list[tuple[str, str]] = []
    while True:
        name = yield from _read_tag(source)
        member = (item_schema(schema, root) if name == ITEM else None) or member_schema(schema, name, root)
        members.append((name, (yield from _read_element(source, mark, name, member, root, depth + 1))))
        yield from source.skip_space()
        yield from source.expect(mark)
        if (yield from source.take_one(closing, "<")) == closing:
            return _joined(members, possible_types(schema, root))


def _leaf(text: str, schema: object, root: Schema) -> str:
    types = possible_types(schema, root)
    if not text.strip() and "string" not in types:
        for type, empty in (("array", "[]"), ("object", "{}")):
            if type in types:
                return empty
    return as_json(text, schema, root)


def _joined(members: list[tuple[str, str]], types: set[str]) -> str:
    names = [name for name, _ in members]
    if set(names) == {ITEM} and ("array" in types or "object" not in types):
        return f"[{', '.join(value for _, value in members)}]"
    if len(set(names)) < len(names):
        raise Malformed
    return "{" + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {value}" for name, value in members) + "}"


def as_json(text: str, schema: object, root: Schema, is_string: bool | None = None) -> str:
    """The value as JSON text: a string, unless the schema allows another type and the text is a value of it.

    `is_string`: the type that the model gave, which decides where the schema leaves it open.
    """
    types = possible_types(schema, root)
    stripped = text.strip()
    if is_string and (not types or "string" in types):
        return json.dumps(text, ensure_ascii=False)
    if is_string is False and types != {"string"} and _is_json(stripped):
        return stripped
    if stripped.lower() in ("true", "false") and "boolean" in types:
        return stripped.lower()
    if stripped.lower() in ("null", "none") and "null" in types:
        return "null"
    if "string" in types and not _is_structure(stripped, types):
        return json.dumps(text, ensure_ascii=False)
    return stripped if _is_json(stripped) else json.dumps(text, ensure_ascii=False)


def _is_structure(text: str, types: set[str]) -> bool:
    type = {"{": "object", "[": "array"}.get(text[:1])
    return type in types and _is_json(text)


def _is_json(text: str) -> bool:
    """Whether the text is one JSON value. The comma ends a number, which has no last character of its own."""
    value = JsonText()
    piece, end = value.take(text + ",", 0)
    return value.complete and end == len(text) and piece == text
