"""Which slots hold which prefixes of prompts: a radix tree over tokens whose edges are prompt slices."""

from bisect import bisect_right
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

    def __init__(self, *, divisible: bool = False) -> None:
        """`divisible`: prompts share a part of a piece too."""
        self._divisible = divisible
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

        Without the slots that have none of its pieces.
        """
        path = list(self._path(pieces))
        held = _longest([node.holders for node in path])
        claimed = _longest([node.claimers for node in path])
        return (
            {slot: path[depth - 1].tokens + self._shared(slot, depth, pieces) for slot, depth in held.items()},
            {slot: path[depth - 1].tokens for slot, depth in claimed.items()},
        )

    def _shared(self, slot: int, depth: int, pieces: Sequence[Piece]) -> int:
        """How many tokens after so many pieces the slot shares with a prompt whose next piece it does not hold."""
        follows, wanted = self._following(slot, depth), pieces[depth] if depth < len(pieces) else ()
        if self._divisible:
            return _common_text(follows, wanted)
        return len(follows) if depth == self.depth(slot) and wanted[: len(follows)] == follows else 0

    def _following(self, slot: int, depth: int) -> Piece:
        """What the slot holds after so many pieces: the next one, or the tail."""
        path = self._held.get(slot, ())
        return path[depth].piece if depth < len(path) else self._tails.get(slot, ())

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
        self._set_tail(slot, tail if self._held.get(slot) else ())

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
        self._set_tail(slot, self._rest(slot, tokens))
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
        self._set_tail(slot, self._rest(source, tokens))

    def _rest(self, slot: int, tokens: int) -> Piece:
        """What of the slot's first tokens follows the last piece that is among them; nothing without such a piece."""
        depth = bisect_right(self._held.get(slot, ()), tokens, key=lambda node: node.tokens)
        if not depth:
            return ()
        follows, left = self._following(slot, depth), tokens - self._held[slot][depth - 1].tokens
        return follows[:left] if self._divisible or left >= len(follows) else ()

    def _set_tail(self, slot: int, tail: Piece) -> None:
        if tail:
            self._tails[slot] = tail
        else:
            self._tails.pop(slot, None)

    def _prune(self, node: _Node) -> None:
        while node.parent is not None and not (node.children or node.holders or node.claimers):
            del node.parent.children[node.piece]
            node = node.parent


def _longest(members: Sequence[Set[int]]) -> dict[int, int]:
    """How far along a path each slot is a member, in nodes."""
    longest: dict[int, int] = {}
    before: Set[int] = frozenset()
    for depth, slots in enumerate(members):
        if slots != before:
            longest.update(dict.fromkeys(before - slots, depth))
        before = slots
    return longest | dict.fromkeys(before, len(members))


def _common_text(one: Piece, other: Piece) -> int:
    """How many tokens both begin with. A part of an image is not shared, nor is a prompt's end: these are negative."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right or (isinstance(left, int) and left < 0):
            break
        count += 1
    return count
