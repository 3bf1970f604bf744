"""Which slots hold which prefixes of prompts: a radix tree over tokens whose edges are prompt slices."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

Piece = tuple[Hashable, ...]
"""The tokens of one slice."""


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

    Only reusable pieces are entered, so a prompt can always continue from a match.
    """

    def __init__(self) -> None:
        self._root = _Node(None, (), 0)
        self._held: dict[int, list[_Node]] = {}
        self._claimed: dict[int, list[_Node]] = {}

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

    def tokens(self, slot: int) -> int:
        """How many tokens the slot holds."""
        path = self._held.get(slot)
        return path[-1].tokens if path else 0

    def depth(self, slot: int) -> int:
        """How many pieces the slot holds."""
        return len(self._held.get(slot, ()))

    def pieces(self, slot: int) -> list[Piece]:
        """What the slot holds."""
        return [node.piece for node in self._held.get(slot, [])]

    def common(self, slot: int, pieces: Sequence[Piece]) -> int:
        """How many tokens of the pieces' prefix this slot holds."""
        tokens = 0
        for node, piece in zip(self._held.get(slot, []), pieces, strict=False):
            if node.piece != piece:
                break
            tokens = node.tokens
        return tokens

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
        """The slot will compute these after what it holds."""
        path = self._held.get(slot)
        node = path[-1] if path else self._root
        claims = self._claimed[slot] = []
        for piece in pieces:
            node = node.children.setdefault(piece, _Node(node, piece, node.tokens + len(piece)))
            node.claimers.add(slot)
            claims.append(node)

    def hold(self, slot: int, pieces: Sequence[Piece]) -> None:
        """The slot holds these too, after what it holds."""
        self.claim(slot, pieces)
        for _ in pieces:
            self.fulfil(slot)

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

    def _prune(self, node: _Node) -> None:
        while node.parent is not None and not (node.children or node.holders or node.claimers):
            del node.parent.children[node.piece]
            node = node.parent
