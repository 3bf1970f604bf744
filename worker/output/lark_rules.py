"""The rules of a grammar in llguidance's Lark, while they are written."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Spelling = Sequence[str | int]
"""A text as tokens write it: control tokens by their ids, since no text in a grammar matches them."""


class Unwritable(Exception):
    """The schema has what the family's way of writing arguments cannot be held to."""


@dataclass(slots=True)
class Rules:
    """A grammar's rules, while they are written."""

    spell: Callable[[str], Spelling]
    schema: Callable[[Mapping[str, Any]], str]
    lines: list[str] = field(default_factory=lambda: ["TEXT: /(?s:.*)/", r"SPACE: /[ \n]*/"])

    def add(self, body: str, attributes: str = "") -> str:
        """A new rule's name."""
        name = f"r{len(self.lines)}"
        self.lines.append(f"{name}{attributes}: {body}")
        return name

    def text(self, text: str) -> str:
        return " ".join(each for part in self.spell(text) if (each := _literal(part)))

    def json(self, schema: Mapping[str, Any]) -> str:
        return self.add(f"%json {self.schema(schema)}")

    def up_to(self, end: str) -> str:
        """Any text, up to this one and with it."""
        first, *rest = self.spell(end)
        head = f"TEXT {_literal(first)}"
        if isinstance(first, str):
            head = self.add(head, "[lazy]")
        return " ".join([head, *map(_literal, rest)])

    def tokens(self, texts: Sequence[str]) -> str:
        """Any number of those texts that are tokens of their own, with other text before each; "" if none is."""
        marks = [self.text(text) for text in texts if any(isinstance(part, int) for part in self.spell(text))]
        return f"(TEXT ({' | '.join(marks)}))*" if marks else ""

    def members(self, items: Sequence[tuple[str, bool]], separator: str) -> str:
        """In their order, with separators; each says whether it is required or may be left out."""
        first = rest = '""'
        for item, required in reversed(items):
            with_it = f"{item} {rest}"
            first = self.add(with_it if required else f"{with_it} | {first}")
            another = f"{json.dumps(separator)} {with_it}"
            rest = self.add(another if required else f"{another} | {rest}")
        return first


def _literal(part: str | int) -> str:
    return f"<[{part}]>" if isinstance(part, int) else json.dumps(part, ensure_ascii=False) if part else ""
