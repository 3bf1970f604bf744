"""Which states are saved and which are evicted for them, within the limits, under random actions."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from worker.engine.cache.prefix_tree import Piece, beginning
from worker.engine.cache.saved_states import SavedStates

RAM, DISK = 10, 20
A, B, C = (1, 2), (3, 4), (5, 6)
paths = st.lists(st.sampled_from([A, B, (7,)]), min_size=1, max_size=4)


class StatesMachine(RuleBasedStateMachine):
    """The model: `ram` and `disk` are the states after all changes were carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.states = SavedStates(RAM, DISK)
        self.ram: set[int] = set()
        self.disk: set[int] = set()
        self.paths: dict[int, list[Piece]] = {}
        self.sizes: dict[int, int] = {}

    @rule(path=paths, size=st.integers(1, 25))
    def add(self, path: list[Piece], size: int) -> None:
        if self.states.covering(path) is not None:
            return
        if (changes := self.states.add(path, size)) is None:
            assert size > DISK
            return
        assert changes.state is not None
        self.enter(changes.state, path, size, self.ram)
        self.carry_out(changes)

    @rule(path=paths, size=st.integers(1, 25))
    def adopt(self, path: list[Piece], size: int) -> None:
        if (changes := self.states.adopt(path, size)) is not None:
            assert changes.state is not None
            self.enter(changes.state, path, size, self.disk)
            self.carry_out(changes)

    @rule()
    def settle(self) -> None:
        self.carry_out(self.states.settle())
        assert not self.ram

    def enter(self, state: int, path: list[Piece], size: int, place: set[int]) -> None:
        assert state not in self.paths
        self.paths[state], self.sizes[state] = path, size
        place.add(state)

    def carry_out(self, changes: Any) -> None:
        self.ram -= {*changes.dropped, *changes.written}
        self.disk -= set(changes.dropped)
        self.disk |= set(changes.written)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def remove_or_touch(self, data: Any) -> None:
        state = data.draw(st.sampled_from(sorted(self.kept)))
        self.states.touch(state)
        if data.draw(st.booleans()):
            self.states.remove(state)
            self.ram.discard(state)
            self.disk.discard(state)

    @rule(path=paths)
    def match(self, path: list[Piece]) -> None:
        commons = {state: self.common(path, self.paths[state]) for state in self.kept}
        found = self.states.match(path)
        assert (found.tokens if found else 0) == max(commons.values(), default=0)
        if found:
            assert commons[found.state] == found.tokens
            assert self.sizes[found.state] == found.size

    def common(self, path: list[Piece], own: list[Piece]) -> int:
        count = 0
        while count < min(len(path), len(own)) and path[count] == own[count]:
            count += 1
        return sum(map(len, path[:count]))

    @property
    def kept(self) -> set[int]:
        return self.ram | self.disk

    @invariant()
    def knows_the_tier_of_every_state(self) -> None:
        assert set(self.states.ram.sizes) == self.ram
        assert set(self.states.disk.sizes) == self.disk
        assert len(self.states) == len(self.kept)
        assert not self.ram & self.disk

    @invariant()
    def never_exceeds_its_limits(self) -> None:
        assert sum(self.sizes[state] for state in self.ram) == self.states.ram.used <= RAM
        assert sum(self.sizes[state] for state in self.disk) == self.states.disk.used <= DISK

    @invariant()
    def keeps_no_prefix_of_another_state(self) -> None:
        for state in self.kept:
            path = self.paths[state]
            assert self.states.pieces(state) == path
            assert not any(self.paths[other][: len(path)] == path for other in self.kept - {state})


TestStates = StatesMachine.TestCase
TestStates.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_ram_overflow_is_written_to_disk_least_recently_used_first() -> None:
    states = SavedStates(RAM, DISK)
    first, second = added(states, [A], 5), added(states, [B], 5)
    states.touch(first)
    changes = states.add([C], 5)
    assert changes is not None
    assert (changes.written, changes.dropped) == ([second], [])


def test_ram_overflow_is_dropped_without_a_disk() -> None:
    states = SavedStates(RAM, 0)
    first = added(states, [A], 8)
    changes = states.add([B], 8)
    assert changes is not None
    assert (changes.written, changes.dropped) == ([], [first])
    assert states.match([A]) is None


def test_without_ram_a_state_is_written_to_disk_at_once() -> None:
    changes = SavedStates(0, DISK).add([A], 5)
    assert changes is not None
    assert changes.written == [changes.state]


def test_a_state_larger_than_every_tier_evicts_nothing() -> None:
    states = SavedStates(RAM, DISK)
    added(states, [A], 8)
    assert states.add([A, B], 30) is None
    assert states.covering([A]) is not None


def test_a_longer_state_replaces_only_its_own_prefix() -> None:
    states = SavedStates(RAM, DISK)
    other, short = added(states, [A, C], 2), added(states, [A, B], 2)
    changes = states.add([A, B, B], 4)
    assert changes is not None
    assert changes.dropped == [short]
    assert states.covering([A, C]) == other


def test_a_file_covered_by_another_is_not_adopted() -> None:
    states = SavedStates(RAM, DISK)
    added(states, [A, B], 4)
    assert states.adopt([A], 2) is None


def test_the_newest_states_are_written_to_disk_at_shutdown() -> None:
    states = SavedStates(20, 10)
    for path in ([A], [B], [C]):
        last = added(states, path, 6)
    assert states.settle().written == [last]


def added(states: SavedStates, path: list[Piece], size: int) -> int:
    changes = states.add(path, size)
    assert changes is not None
    assert changes.state is not None
    return changes.state


def test_a_prefix_has_whole_pieces() -> None:
    assert beginning([A, B, C], 4) == beginning([A, B, C], 5) == [A, B]
    assert beginning([A], 1) == []
