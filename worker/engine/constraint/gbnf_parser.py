"""Parses GBNF, llama.cpp's notation for grammars, into rules. Pure.

Notation: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MOST_RULES = 2000
DEEPEST_GROUP = 64  # levels
MOST_REPETITIONS = 100_000

_TOKENS = re.compile(
    r"""
    (?P<space>(?:\s|\#[^\r\n]*)+)
  | (?P<head>[A-Za-z0-9_-]+(?:\s|\#[^\r\n]*)*::=)
  | (?P<name>[A-Za-z0-9_-]+)
  | (?P<literal>"(?:[^"\\\r\n]|\\.)*")
  | (?P<set>\[\^?(?:[^\]\\\r\n]|\\.)*\])
  | (?P<token><(?:\[\d+\]|[^<>\s\[\]]+)>)
  | (?P<repeat>[*+?]|\{\s*\d+\s*(?:,\s*\d*\s*)?\})
  | (?P<sign>[.()|])
    """,
    re.VERBOSE,
)
_CHARACTER = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([nrt\"\\\[\]]))|([^\\])", re.S)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


class GbnfError(ValueError):
    """The grammar is not GBNF; the message says where."""


@dataclass(frozen=True, slots=True)
class Term:
    """A regular expression over characters."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the vocabulary, by its text or id."""

    text: str


@dataclass(frozen=True, slots=True)
class Name:
    """A reference to a rule."""

    name: str


@dataclass(frozen=True, slots=True)
class Repeat:
    item: "Node"
    times: str  # as Lark writes it: *, +, ?, {2,3}


@dataclass(frozen=True, slots=True)
class Row:
    """Items that follow one another."""

    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Alternatives."""

    options: tuple["Node", ...]


Node = Term | Token | Name | Repeat | Row | Choice


def read_gbnf(text: str) -> dict[str, Node]:
    """The rules by name. Raises GbnfError when the text is not GBNF."""
    return _Parser(text).rules()


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def rules(self) -> dict[str, Node]:
        rules: dict[str, Node] = {}
        while self._peek()[0] != "end":
            kind, text = self._take()
            if kind != "head":
                raise GbnfError(f"a rule was expected before {_shown(text)}")
            rules[re.split(r"[\s#:]", text, maxsplit=1)[0]] = self._choice()
            if len(rules) > MOST_RULES:
                raise GbnfError(f"it has more than {MOST_RULES} rules")
        return rules

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next]

    def _take(self) -> tuple[str, str]:
        self._next += 1
        return self._tokens[self._next - 1]

    def _choice(self) -> Node:
        options = [self._row()]
        while self._peek() == ("sign", "|"):
            self._take()
            options.append(self._row())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _row(self) -> Node:
        items: list[Node] = []
        while True:
            kind, text = self._peek()
            if kind in ("end", "head") or (text in ("|", ")") and kind == "sign"):
                return items[0] if len(items) == 1 else Row(tuple(items))
            if kind == "repeat":
                if not items or isinstance(items[-1], Repeat):  # thousands in a row would be nested as deep
                    raise GbnfError(f"{text} has nothing to repeat")
                items[-1] = Repeat(items[-1], _times(self._take()[1]))
            else:
                items.append(self._item())

    def _item(self) -> Node:
        kind, text = self._take()
        match kind:
            case "literal":
                return Term("".join(map(_quoted, _characters(text[1:-1]))))
            case "set":
                return Term(_set(text))
            case "name":
                return Name(text)
            case "token":
                return Token(text)
        return Term("(?s:.)") if text == "." else self._group()

    def _group(self) -> Node:
        self._depth += 1
        if self._depth > DEEPEST_GROUP:
            raise GbnfError(f"its groups are nested deeper than {DEEPEST_GROUP} levels")
        inner = self._choice()
        if self._take() != ("sign", ")"):
            raise GbnfError('a ")" is missing')
        self._depth -= 1
        return inner


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        found = _TOKENS.match(text, position)
        if found is None:
            line = text.count("\n", 0, position) + 1
            raise GbnfError(f"line {line} is not GBNF from {_shown(text[position:])} on")
        position = found.end()
        if found.lastgroup != "space":
            yield str(found.lastgroup), found.group()
    yield "end", "the end"


def _characters(text: str) -> Iterator[str]:
    position = 0
    while position < len(text):
        found = _CHARACTER.match(text, position)
        if found is None:
            raise GbnfError(f"{_shown(text[position : position + 10])} is not an escape sequence")
        position = found.end()
        two, four, eight, named, plain = found.groups()
        yield _code_point(two or four or eight) if two or four or eight else _ESCAPES.get(named, named) or plain


def _code_point(digits: str) -> str:
    number = int(digits, 16)
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise GbnfError(f"{digits} is not a code point")
    return chr(number)


def _quoted(character: str) -> str:
    """The character in a regular expression, by number where it might have a meaning of its own."""
    plain = character.isascii() and character.isalnum()
    return character if plain else f"\\x{{{ord(character):X}}}"


def _set(text: str) -> str:
    """[a-z] as a regular expression."""
    negated = text.startswith("[^")
    body = text[2 if negated else 1 : -1]
    characters = list(_characters(body))
    marks = _dashes(body)
    parts, i = [], 0
    while i < len(characters):
        if i + 2 < len(characters) and marks[i + 1]:
            if characters[i] > characters[i + 2]:
                raise GbnfError(f"{_shown(text)} has a range that ends before it begins")
            parts.append(f"{_quoted(characters[i])}-{_quoted(characters[i + 2])}")
            i += 3
        else:
            parts.append(_quoted(characters[i]))
            i += 1
    if not parts:
        return "(?s:.)" if negated else "[^\\x{0}-\\x{10FFFF}]"
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _dashes(body: str) -> list[bool]:
    """For each of a set's characters, whether it is an unescaped dash, which may form a range."""
    return [found.group() == "-" for found in _CHARACTER.finditer(body)]


def _times(text: str) -> str:
    numbers = [int(number) for number in re.findall(r"\d+", text[:40])]
    if max(numbers, default=0) > MOST_REPETITIONS:
        raise GbnfError(f"{_shown(text)} repeats more than {MOST_REPETITIONS} times")
    return re.sub(r"\s", "", text)


def _shown(text: str) -> str:
    return f'"{text[:40]}"'
