"""Which prefixes of prompts are saved outside the slots, in RAM or on disk. Decisions alone: no bytes are moved."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import count

from worker.engine.cache.prefix_tree import Piece, PrefixTree


@dataclass(slots=True)
class LruStore:
    """The states in a place of bounded size. The least recently used one is evicted first."""

    capacity: int  # bytes
    sizes: dict[int, int] = field(default_factory=dict)  # of each state; the least recently used first
    used: int = 0

    def put(self, state: int, size: int) -> dict[int, int]:
        """Add a state that is no larger than the capacity; returns the evicted ones with their sizes."""
        gone = self._evict(self.capacity - size)
        self.sizes[state] = size
        self.used += size
        return gone

    def shrink(self) -> dict[int, int]:
        """Evict until the rest fits; returns the evicted ones with their sizes."""
        return self._evict(self.capacity)

    def touch(self, state: int) -> None:
        if state in self.sizes:
            self.sizes[state] = self.sizes.pop(state)

    def remove(self, state: int) -> int:
        size = self.sizes.pop(state, 0)
        self.used -= size
        return size

    def _evict(self, room: int) -> dict[int, int]:
        gone = {}
        while self.used > room:
            oldest = next(iter(self.sizes))
            gone[oldest] = self.remove(oldest)
        return gone


@dataclass(frozen=True, slots=True)
class Changes:
    """What to do after a decision: first drop states, then write others to the disk."""

    state: int | None  # the new one's number, if any
    dropped: list[int]
    written: list[int]


@dataclass(frozen=True, slots=True)
class SavedPrefix:
    """A saved state whose first `tokens` tokens are a prefix of a prompt."""

    state: int
    tokens: int
    size: int  # bytes of the whole state


class SavedStates:
    """States in RAM, and states on the disk, which were evicted from RAM.

    Each is one path from the root of a tree of prompts' pieces. A state that is a prefix of another one is dropped:
    the longer one serves the same prompts, unless states are used `whole`.
    """

    def __init__(self, ram: int, disk: int, *, whole: bool = False) -> None:
        """The capacities in bytes; 0 for none. `whole`: a state serves only prompts that begin with all of it."""
        self._whole = whole
        self.ram = LruStore(ram)
        self.disk = LruStore(disk)
        self._tree = PrefixTree()
        self._numbers = count()

    def __len__(self) -> int:
        return len(self.ram.sizes) + len(self.disk.sizes)

    def add(self, pieces: Sequence[Piece], size: int) -> Changes | None:
        """Keep a state that no other covers, in RAM if it fits there; None when it fits nowhere."""
        if size > max(self.ram.capacity, self.disk.capacity):
            return None
        dropped = self._drop_covered(pieces)
        state = self._enter(pieces)
        if size > self.ram.capacity:
            return self._changes(state, dropped, {state: size})
        return self._changes(state, dropped, self.ram.put(state, size))

    def adopt(self, pieces: Sequence[Piece], size: int) -> Changes | None:
        """Keep a state that is on the disk already; None when it is too large, or another state covers it."""
        if size > self.disk.capacity or self.covering(pieces) is not None:
            return None
        dropped = self._drop_covered(pieces)
        state = self._enter(pieces)
        changes = self._changes(state, dropped, {state: size})
        return Changes(state, changes.dropped, [])

    def limit_ram(self, capacity: int) -> Changes:
        """Change the capacity; states that no longer fit move to the disk or are dropped, the oldest first."""
        self.ram.capacity = capacity
        return self._changes(None, [], self.ram.shrink())

    def settle(self) -> Changes:
        """Move the states from RAM to the disk, as many of the newest as fit; later ones are kept there too."""
        spilled, self.ram = self.ram.sizes, LruStore(0)
        return self._changes(None, [], spilled)

    def match(self, pieces: Sequence[Piece]) -> SavedPrefix | None:
        """The longest saved prefix of the pieces; of several states the one that is read fastest."""
        held, holders = self._match(pieces)
        if not holders:
            return None
        state = min(holders, key=lambda each: (each in self.disk.sizes, self._size(each)))
        return SavedPrefix(state, held, self._size(state))

    def _match(self, pieces: Sequence[Piece]) -> tuple[int, Collection[int]]:
        """The tokens of the longest prefix of the pieces that serves a prompt, and the states that have it."""
        if self._whole:
            longest = self._tree.within(pieces)[-1:]  # no two are the same
            return sum(map(self._tree.tokens, longest)), longest
        match = self._tree.match(pieces)
        return match.held, match.holders

    def covering(self, pieces: Sequence[Piece]) -> int | None:
        """A state that serves all prompts that begin with these pieces."""
        held, holders = self._match(pieces)
        return min(holders, default=None) if held == sum(map(len, pieces)) else None

    def pieces(self, state: int) -> list[Piece]:
        return self._tree.pieces(state)

    def touch(self, state: int) -> None:
        """Mark as used: it is evicted last now."""
        self.ram.touch(state)
        self.disk.touch(state)

    def remove(self, state: int) -> None:
        self.ram.remove(state)
        self.disk.remove(state)
        self._tree.cut(state, 0)

    def _size(self, state: int) -> int:
        return self.ram.sizes.get(state) or self.disk.sizes[state]

    def _enter(self, pieces: Sequence[Piece]) -> int:
        state = next(self._numbers)
        self._tree.hold(state, pieces)
        return state

    def _drop_covered(self, pieces: Sequence[Piece]) -> list[int]:
        """Those that are used whole are kept: no longer state takes their place."""
        covered = [] if self._whole else self._tree.within(pieces)
        for state in covered:
            self.remove(state)
        return covered

    def _changes(self, state: int | None, dropped: list[int], spilled: dict[int, int]) -> Changes:
        """Move states evicted from RAM to the disk, and forget those that do not fit there."""
        gone: list[int] = []
        for each, size in spilled.items():
            gone += self.disk.put(each, size) if size <= self.disk.capacity else [each]
        for each in gone:
            self._tree.cut(each, 0)
        return Changes(state, dropped + gone, [each for each in spilled if each not in gone])
