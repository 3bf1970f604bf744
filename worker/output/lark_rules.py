"""Writes the rules of a grammar in llguidance's Lark dialect.

Syntax: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from worker.output.parameter_schema import Schema

Spelling = Sequence[str | int]
"""A text as tokens write it: control tokens by their ids, since no text in a grammar matches them."""


@dataclass(slots=True)
class Rules:
    """A grammar's rules so far. `schema`: a schema as JSON text, with llguidance's options."""

    spell: Callable[[str], Spelling]
    schema: Callable[[Schema], str]
    lines: list[str] = field(default_factory=lambda: ["TEXT: /(?s:.*)/", r"SPACE: /[ \n]*/"])

    def add(self, body: str, attributes: str = "") -> str:
        """Add a rule; returns its name."""
        name = f"r{len(self.lines)}"
        self.lines.append(f"{name}{attributes}: {body}")
        return name

    def text(self, text: str) -> str:
        """Exactly this text."""
        return " ".join(each for part in self.spell(text) if (each := _literal(part)))

    def json(self, schema: Schema) -> str:
        """JSON that the schema allows."""
        return self.add(f"%json {self.schema(schema)}")

    def up_to(self, end: str) -> str:
        """Any text that ends with the first `end` in it."""
        first, *rest = self.spell(end)
        head = f"TEXT {_literal(first)}"
        if isinstance(first, str):
            head = self.add(head, "[lazy]")
        return " ".join([head, *map(_literal, rest)])

    def tokens(self, texts: Sequence[str]) -> str:
        """Any number of those texts that are control tokens, each after any other text; "" if none of them is."""
        marks = [self.text(text) for text in texts if any(isinstance(part, int) for part in self.spell(text))]
        return f"(TEXT ({' | '.join(marks)}))*" if marks else ""

    def members(self, items: Sequence[tuple[str, bool]], separator: str) -> str:
        """The items in this order, with separators. Each comes with whether it is required."""
        first = rest = '""'
        for item, required in reversed(items):
            with_it = f"{item} {rest}"
            first = self.add(with_it if required else f"{with_it} | {first}")
            another = f"{json.dumps(separator)} {with_it}"
            rest = self.add(another if required else f"{another} | {rest}")
        return first


def _literal(part: str | int) -> str:
    return f"<[{part}]>" if isinstance(part, int) else json.dumps(part, ensure_ascii=False) if part else ""
