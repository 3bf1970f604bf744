"""Translates GBNF into llguidance's Lark dialect. Pure.

llguidance's lexer takes the longest match of each terminal and never backtracks. So every regular part becomes a
single terminal: as two terminals, `[a-z]+ "a"` could never match.
"""

from collections import deque
from collections.abc import Iterator

from worker.engine.constraint.gbnf_parser import Choice, GbnfError, Name, Node, Repeat, Row, Term, Token, read_gbnf


def gbnf_to_lark(text: str) -> str:
    """The grammar in Lark. Raises GbnfError when it is not GBNF, or lacks a rule."""
    rules = read_gbnf(text)
    if "root" not in rules:
        raise GbnfError('there is no rule "root"')
    return _Writer(rules).write()


class _Writer:
    """Regular rules become terminals. In the other rules, each regular part becomes one."""

    def __init__(self, rules: dict[str, Node]) -> None:
        self._rules = rules
        self._numbers = {name: number for number, name in enumerate(rules)}
        self._used = _reachable(rules)
        self._regular = _regular(rules, self._used)
        self._parts: dict[str, str] = {}  # a regular part -> its terminal

    def write(self) -> str:
        lines = ["%llguidance {}"]
        for name in self._used:
            if name in self._regular:
                lines.append(f"T{self._numbers[name]}: {self._term(self._rules[name])}")
            else:
                lines.append(f"r{self._numbers[name]}: {self._rule(self._rules[name])}")
        lines.append(f"start: {self._reference('root')}")
        lines.extend(f"{terminal}: {part}" for part, terminal in self._parts.items())
        return "\n".join(lines) + "\n"

    def _reference(self, name: str) -> str:
        return f"{'T' if name in self._regular else 'r'}{self._numbers[name]}"

    def _is_regular(self, node: Node) -> bool:
        return not any(isinstance(leaf, Token) for leaf in _leaves(node)) and _names(node) <= self._regular

    def _term(self, node: Node) -> str:
        match node:
            case Term(pattern):
                return f"/{pattern}/" if pattern else '""'
            case Name(name):
                return self._reference(name)
            case Repeat(item, times):
                return f"({self._term(item)}){times}"
            case Row(items):
                return " ".join(map(self._term, items)) or '""'
            case Choice(options):
                return f"({' | '.join(map(self._term, options))})"
        raise AssertionError(node)

    def _rule(self, node: Node) -> str:
        if self._is_regular(node):
            return self._part(node)
        match node:
            case Token(text):
                return text
            case Name(name):
                return self._reference(name)
            case Repeat(item, times):
                return f"({self._rule(item)}){times}"
            case Row(items):
                return " ".join(map(self._rule, self._joined(items)))
            case Choice(options):
                return f"({' | '.join(map(self._rule, options))})"
        raise AssertionError(node)

    def _joined(self, items: tuple[Node, ...]) -> Iterator[Node]:
        """The row, with regular items that follow one another joined."""
        run: list[Node] = []
        for item in items:
            if self._is_regular(item):
                run.append(item)
                continue
            if run:
                yield Row(tuple(run))
            run = []
            yield item
        if run:
            yield Row(tuple(run))

    def _part(self, node: Node) -> str:
        return self._parts.setdefault(self._term(node), f"P{len(self._parts)}")


def _leaves(node: Node) -> Iterator[Node]:
    match node:
        case Repeat(item, _):
            yield from _leaves(item)
        case Row(inner) | Choice(inner):
            for each in inner:
                yield from _leaves(each)
        case _:
            yield node


def _names(node: Node) -> set[str]:
    return {leaf.name for leaf in _leaves(node) if isinstance(leaf, Name)}


def _reachable(rules: dict[str, Node]) -> list[str]:
    """The rules that "root" uses, itself first. Raises GbnfError when one is missing."""
    found, queue = {"root": None}, deque(["root"])
    while queue:
        for name in sorted(_names(rules[queue.popleft()])):
            if name not in rules:
                raise GbnfError(f'there is no rule "{name[:40]}"')
            if name not in found:
                found[name] = None
                queue.append(name)
    return list(found)


def _regular(rules: dict[str, Node], used: list[str]) -> set[str]:
    """The rules whose expansion contains neither recursion nor tokens, in one pass over the references."""
    missing = {name: len(_names(rules[name])) for name in used}
    users: dict[str, list[str]] = {name: [] for name in used}
    for name in used:
        for needed in _names(rules[name]):
            users[needed].append(name)
    ready = deque(name for name, count in missing.items() if count == 0)
    regular: set[str] = set()
    while ready:
        name = ready.popleft()
        if any(isinstance(leaf, Token) for leaf in _leaves(rules[name])):
            continue
        regular.add(name)
        for user in users[name]:
            missing[user] -= 1
            if missing[user] == 0:
                ready.append(user)
    return regular
