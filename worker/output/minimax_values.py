"""Values as MiniMax M3 writes them: <days><item>1</item><item>2</item></days>, with a mark before each tag."""

import json
from collections.abc import Mapping
from typing import Any

from worker.output.plain_values import as_json, item_schema, member_schema, types_of
from worker.output.text_source import LONGEST_NAME, Malformed, Reading, Source

DEEPEST = 64  # tags within one another
ITEM = "item"  # the tag of a list's members


def read_tagged(source: Source, mark: str, parameters: Mapping[str, Any]) -> Reading[tuple[str, str]]:
    """A parameter whose first bracket was read, and its value as JSON text."""
    name = yield from _tag(source)
    schema = member_schema(parameters, name, parameters)
    return name, (yield from _element(source, mark, name, schema, parameters))


def _tag(source: Source) -> Reading[str]:
    """The rest of a tag whose mark and bracket were read: its name."""
    name = yield from source.until(">", LONGEST_NAME)
    if not name or name != name.strip() or name.startswith("/") or "<" in name:
        raise Malformed
    return name


def _element(source: Source, mark: str, tag: str, schema: Any, root: Mapping[str, Any], depth: int = 0) -> Reading[str]:
    """A value as JSON text, up to the end of its tag, which is passed over. `root`: what the schema refers to."""
    if depth == DEEPEST:
        raise Malformed
    closing = f"</{tag}>"
    text = yield from source.until(mark)
    if (yield from _expect_one(source, closing, "<")) == closing:
        return _leaf(text, schema, root)
    if text.strip():
        raise Malformed
    members: list[tuple[str, str]] = []
    while True:
        name = yield from _tag(source)
        within = item_schema(schema, root) if name == ITEM else None
        within = within or member_schema(schema, name, root)
        members.append((name, (yield from _element(source, mark, name, within, root, depth + 1))))
        yield from source.space()
        yield from source.expect(mark)
        if (yield from _expect_one(source, closing, "<")) == closing:
            return _joined(members, types_of(schema, root))


def _expect_one(source: Source, *marks: str) -> Reading[str]:
    found = yield from source.starts(*marks)
    if not found:
        raise Malformed
    return found


def _leaf(text: str, schema: Any, root: Mapping[str, Any]) -> str:
    types = types_of(schema, root)
    if not text.strip() and "string" not in types:
        for kind, empty in (("array", "[]"), ("object", "{}")):
            if kind in types:
                return empty
    return as_json(text, schema, root)


def _joined(members: list[tuple[str, str]], types: set[str]) -> str:
    names = [name for name, _ in members]
    if set(names) == {ITEM} and ("array" in types or "object" not in types):
        return f"[{', '.join(value for _, value in members)}]"
    if len(set(names)) < len(names):
        raise Malformed
    return "{" + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {value}" for name, value in members) + "}"
