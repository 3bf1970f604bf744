"""Which slots hold which prefixes of prompts: a radix tree over tokens whose edges are prompt slices."""

from collections.abc import Hashable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import accumulate

Piece = tuple[Hashable, ...]
"""The tokens of one slice."""

WHOLE = -1  # follows the last token of a prompt in its last piece: no other prompt continues from there


def prompt_length(claims: Sequence[Piece]) -> int:
    """The tokens of a prompt whose pieces these are; the last one ends with WHOLE."""
    return max(0, sum(map(len, claims)) - 1)


def beginning(pieces: Sequence[Piece], tokens: int) -> list[Piece]:
    """The first pieces, as many as have no more than these tokens together."""
    ends = accumulate(map(len, pieces))
    return [piece for piece, end in zip(pieces, ends, strict=True) if end <= tokens]


def set_apart(pieces: Sequence[Piece], mark: Hashable) -> list[Piece]:
    """A prompt's pieces, different from those of the same tokens with another mark, which are computed otherwise."""
    return [((mark, piece[0]), *piece[1:]) if number == 0 else piece for number, piece in enumerate(pieces)]


@dataclass(eq=False, slots=True)
class _Node:
    parent: "_Node | None"
    piece: Piece
    tokens: int  # from the root to here
    children: dict[Piece, "_Node"] = field(default_factory=dict)
    holders: set[int] = field(default_factory=set)
    claimers: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Match:
    """How much of a prompt is in the KV cache, and how much will be soon."""

    held: int  # tokens
    holders: frozenset[int] = frozenset()  # slots that hold them
    claimed: int = 0  # tokens, held ones included
    claimers: frozenset[int] = frozenset()  # slots that are computing them


class PrefixTree:
    """A slot holds one path from the root: what is computed. It may claim a longer one: what it computes next.

    After its path it may hold a tail: a few tokens more, fewer than a piece.
    """

    def __init__(self) -> None:
        self._root = _Node(None, (), 0)
        self._held: dict[int, list[_Node]] = {}
        self._claimed: dict[int, list[_Node]] = {}
        self._tails: dict[int, Piece] = {}

    def match(self, pieces: Sequence[Piece]) -> Match:
        """The longest prefix of the pieces that any slot holds, and that any slot claims."""
        held = claimed = self._root
        node: _Node | None = self._root
        for piece in pieces:
            node = node.children.get(piece) if node else None
            if node is None:
                break
            if node.holders:
                held = node
            if node.claimers:
                claimed = node
        if claimed.tokens <= held.tokens:
            return Match(held.tokens, frozenset(held.holders), held.tokens)
        return Match(held.tokens, frozenset(held.holders), claimed.tokens, frozenset(claimed.claimers))

    def commons(self, pieces: Sequence[Piece]) -> tuple[dict[int, int], dict[int, int]]:
        """How many tokens of the pieces' prefix each slot holds, with its tail, and how many each claims.

        Without the slots that have none of them.
        """
        path = list(self._path(pieces))
        held = _longest(path, [node.holders for node in path])
        for slot, tail in self._tails.items():
            depth = self.depth(slot)
            if held.get(slot) == self.tokens(slot) and pieces[depth : depth + 1]:
                held[slot] += len(tail) if pieces[depth][: len(tail)] == tail else 0
        return held, _longest(path, [node.claimers for node in path])

    def _path(self, pieces: Sequence[Piece]) -> Iterator[_Node]:
        """The nodes of the pieces, as far as there are any."""
        node: _Node | None = self._root
        for piece in pieces:
            node = node.children.get(piece) if node else None
            if node is None:
                return
            yield node

    def tokens(self, slot: int) -> int:
        """How many tokens the slot holds, without its tail."""
        path = self._held.get(slot)
        return path[-1].tokens if path else 0

    def depth(self, slot: int) -> int:
        """How many pieces the slot holds."""
        return len(self._held.get(slot, ()))

    def pieces(self, slot: int) -> list[Piece]:
        """What the slot holds."""
        return [node.piece for node in self._held.get(slot, [])]

    def within(self, pieces: Sequence[Piece]) -> list[int]:
        """The slots that hold nothing but a prefix of the pieces."""
        found: list[int] = []
        node: _Node | None = self._root
        for piece in pieces:
            node = node.children.get(piece) if node else None
            if node is None:
                break
            found += [slot for slot in node.holders if self._held[slot][-1] is node]
        return found

    def claim(self, slot: int, pieces: Iterable[Piece]) -> None:
        """The slot will compute these after what it holds, in place of its tail."""
        self._tails.pop(slot, None)
        path = self._held.get(slot)
        node = path[-1] if path else self._root
        claims = self._claimed[slot] = []
        for piece in pieces:
            node = node.children.setdefault(piece, _Node(node, piece, node.tokens + len(piece)))
            node.claimers.add(slot)
            claims.append(node)

    def hold(self, slot: int, pieces: Sequence[Piece], tail: Piece = ()) -> None:
        """The slot holds these too, after what it holds, and then a tail."""
        self.claim(slot, pieces)
        for _ in pieces:
            self.fulfil(slot)
        if tail and self._held.get(slot):
            self._tails[slot] = tail

    def fulfil(self, slot: int) -> None:
        """The first of the slot's claims is computed: it holds that now."""
        node = self._claimed[slot].pop(0)
        node.claimers.discard(slot)
        node.holders.add(slot)
        self._held.setdefault(slot, []).append(node)

    def unclaim(self, slot: int) -> None:
        """The slot does not compute the rest of its claims."""
        for node in reversed(self._claimed.pop(slot, [])):
            node.claimers.discard(slot)
            self._prune(node)

    def cut(self, slot: int, tokens: int) -> None:
        """The slot keeps at most this many tokens of what it holds, and claims nothing."""
        self.unclaim(slot)
        if tokens < self.tokens(slot) + len(self._tails.get(slot, ())):
            self._tails.pop(slot, None)
        path = self._held.get(slot, [])
        while path and path[-1].tokens > tokens:
            node = path.pop()
            node.holders.discard(slot)
            self._prune(node)

    def copy(self, source: int, slot: int, tokens: int) -> None:
        """The slot holds the first tokens of another one, in place of its own."""
        self.cut(slot, 0)
        path = [node for node in self._held.get(source, []) if node.tokens <= tokens]
        self._held[slot] = path
        for node in path:
            node.holders.add(slot)
        if (tail := self._tails.get(source)) and tokens >= self.tokens(source) + len(tail):
            self._tails[slot] = tail

    def _prune(self, node: _Node) -> None:
        while node.parent is not None and not (node.children or node.holders or node.claimers):
            del node.parent.children[node.piece]
            node = node.parent


def _longest(path: Sequence[_Node], members: Sequence[Set[int]]) -> dict[int, int]:
    """How far along the path each slot is a member, in tokens."""
    longest: dict[int, int] = {}
    before: Set[int] = frozenset()
    for node, slots in zip(path, members, strict=True):
        if slots != before:
            longest.update(dict.fromkeys(before - slots, node.tokens - len(node.piece)))
        before = slots
    return longest | dict.fromkeys(before, path[-1].tokens) if path else {}
