"""Which beginnings of prompts are saved beside the slots, and where: decisions, no bytes are moved here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from worker.engine.cache.prefix_tree import Piece, PrefixTree


@dataclass(slots=True)
class Shelf:
    """A place of bounded size. The state unused for longest goes first."""

    capacity: int  # bytes
    sizes: dict[int, int] = field(default_factory=dict)  # of each state; the one unused for longest first
    used: int = 0

    def put(self, state: int, size: int) -> dict[int, int]:
        """Take a state that is no larger than the shelf: those that had to go, with their sizes."""
        gone = {}
        while self.used + size > self.capacity:
            oldest = next(iter(self.sizes))
            gone[oldest] = self.remove(oldest)
        self.sizes[state] = size
        self.used += size
        return gone

    def touch(self, state: int) -> None:
        if state in self.sizes:
            self.sizes[state] = self.sizes.pop(state)

    def remove(self, state: int) -> int:
        size = self.sizes.pop(state, 0)
        self.used -= size
        return size


@dataclass(frozen=True, slots=True)
class Changes:
    """What the decision to keep states asks for: first drop, then write. `state` is the new one's number, if any."""

    state: int | None
    dropped: list[int]
    written: list[int]  # they belong on the disk now


@dataclass(frozen=True, slots=True)
class Found:
    """A saved state whose first `tokens` tokens a prompt begins with."""

    state: int
    tokens: int
    size: int  # bytes of the whole state


class SavedStates:
    """States in RAM, and below them those on the disk: what RAM has no more room for goes there.

    Each is one path from the root of a tree of prompts' pieces. A state whose whole path another one
    begins with is dropped: the longer one serves the same prompts.
    """

    def __init__(self, ram: int, disk: int) -> None:
        """Bytes of each; 0: there is none."""
        self.ram = Shelf(ram)
        self.disk = Shelf(disk)
        self._tree = PrefixTree()
        self._numbers = count()

    def __len__(self) -> int:
        return len(self.ram.sizes) + len(self.disk.sizes)

    def add(self, pieces: Sequence[Piece], size: int) -> Changes | None:
        """Keep a state that none covers, in RAM if it fits there at all; None when there is no place that large."""
        if size > max(self.ram.capacity, self.disk.capacity):
            return None
        dropped = self._drop_covered(pieces)
        state = self._enter(pieces)
        if size > self.ram.capacity:
            return self._changes(state, dropped, {state: size})
        return self._changes(state, dropped, self.ram.put(state, size))

    def adopt(self, pieces: Sequence[Piece], size: int) -> Changes | None:
        """A state that is on the disk already; None when it is too large or of no use beside the others."""
        if size > self.disk.capacity or self.covering(pieces) is not None:
            return None
        dropped = self._drop_covered(pieces)
        state = self._enter(pieces)
        changes = self._changes(state, dropped, {state: size})
        return Changes(state, changes.dropped, [])

    def settle(self) -> Changes:
        """RAM comes to an end: its states go to the disk, as many of the newest as fit, and so do those that follow."""
        spilled, self.ram = self.ram.sizes, Shelf(0)
        return self._changes(None, [], spilled)

    def match(self, pieces: Sequence[Piece]) -> Found | None:
        """The longest beginning of the pieces that is saved; of several states the one that is read soonest."""
        match = self._tree.match(pieces)
        if not match.holders:
            return None
        state = min(match.holders, key=lambda each: (each in self.disk.sizes, self._size(each)))
        return Found(state, match.held, self._size(state))

    def covering(self, pieces: Sequence[Piece]) -> int | None:
        """A state that begins with all of these pieces."""
        match = self._tree.match(pieces)
        return min(match.holders, default=None) if match.held == sum(map(len, pieces)) else None

    def pieces(self, state: int) -> list[Piece]:
        return self._tree.pieces(state)

    def touch(self, state: int) -> None:
        """It was of use: it goes last now."""
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
        covered = self._tree.within(pieces)
        for state in covered:
            self.remove(state)
        return covered

    def _changes(self, state: int | None, dropped: list[int], spilled: dict[int, int]) -> Changes:
        """Put what RAM has no room for on the disk, and forget what the disk has none for."""
        gone: list[int] = []
        for each, size in spilled.items():
            gone += self.disk.put(each, size) if size <= self.disk.capacity else [each]
        for each in gone:
            self._tree.cut(each, 0)
        return Changes(state, dropped + gone, [each for each in spilled if each not in gone])
