"""The prefix tree, compared with a model made of plain lists."""

from itertools import takewhile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from worker.engine.cache.prefix_tree import WHOLE, Match, Piece, PrefixTree, set_apart

SLOTS = range(3)
slots = st.sampled_from(SLOTS)
pieces = st.sampled_from([(1,), (2,), (1, 2), (2, 1, 1)])
paths = st.lists(pieces, max_size=4)


def length(path: list[Piece]) -> int:
    return sum(map(len, path))


class TreeMachine(RuleBasedStateMachine):
    """The model: `held` and `claimed` are the lists of each slot, `tails` what they hold beyond."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = PrefixTree()
        self.divisible = False
        self.held: dict[int, list[Piece]] = {slot: [] for slot in SLOTS}
        self.claimed: dict[int, list[Piece]] = {slot: [] for slot in SLOTS}
        self.tails: dict[int, Piece] = dict.fromkeys(SLOTS, ())

    @initialize(divisible=st.booleans())
    def start(self, divisible: bool) -> None:
        self.tree, self.divisible = PrefixTree(divisible=divisible), divisible

    @rule(slot=slots, path=paths)
    def claim(self, slot: int, path: list[Piece]) -> None:
        if not self.claimed[slot]:
            self.tree.claim(slot, path)
            self.claimed[slot] = path
            self.tails[slot] = ()

    @precondition(lambda self: any(self.claimed.values()))
    @rule(data=st.data())
    def fulfil(self, data: Any) -> None:
        slot = data.draw(st.sampled_from([slot for slot in SLOTS if self.claimed[slot]]))
        self.tree.fulfil(slot)
        self.held[slot] = [*self.held[slot], self.claimed[slot][0]]
        self.claimed[slot] = self.claimed[slot][1:]

    @rule(slot=slots, path=paths, tail=st.sampled_from([(), (1,), (2,)]))
    def hold(self, slot: int, path: list[Piece], tail: Piece) -> None:
        if not self.claimed[slot]:
            self.tree.hold(slot, path, tail)
            self.held[slot] = self.held[slot] + path
            self.tails[slot] = tail if self.held[slot] else ()

    @rule(slot=slots)
    def unclaim(self, slot: int) -> None:
        self.tree.unclaim(slot)
        self.claimed[slot] = []

    @rule(slot=slots, tokens=st.integers(0, 10))
    def cut(self, slot: int, tokens: int) -> None:
        self.tree.cut(slot, tokens)
        self.tails[slot] = self.tail_within(slot, tokens)
        self.held[slot] = self.first(slot, tokens)
        self.claimed[slot] = []

    @rule(source=slots, slot=slots, tokens=st.integers(0, 10))
    def copy(self, source: int, slot: int, tokens: int) -> None:
        if source != slot:
            self.tree.copy(source, slot, tokens)
            self.tails[slot] = self.tail_within(source, tokens)
            self.held[slot] = self.first(source, tokens)
            self.claimed[slot] = []

    def tail_within(self, slot: int, tokens: int) -> Piece:
        """What of the slot's first tokens follows the whole pieces among them."""
        whole = self.first(slot, tokens)
        follows = self.following(slot, len(whole))
        rest = follows[: tokens - length(whole)] if whole else ()
        return rest if self.divisible or rest == follows else ()

    def following(self, slot: int, depth: int) -> Piece:
        return [*self.held[slot], self.tails[slot]][depth]

    def first(self, slot: int, tokens: int) -> list[Piece]:
        path = self.held[slot]
        return path[: sum(length(path[: count + 1]) <= tokens for count in range(len(path)))]

    @rule(path=paths)
    def match(self, path: list[Piece]) -> None:
        assert self.tree.match(path) == self.expected(path)

    @rule(slot=slots, rest=paths)
    def match_the_content_of_a_slot(self, slot: int, rest: list[Piece]) -> None:
        self.match([*self.held[slot], *self.claimed[slot], *rest])

    def expected(self, path: list[Piece]) -> Match:
        held, holders = self.longest(path, self.held)
        both = {slot: self.held[slot] + self.claimed[slot] for slot in SLOTS if self.claimed[slot]}
        claimed, _ = self.longest(path, both)
        if claimed <= held:
            return Match(held, holders, held)
        claimers = {slot for slot in both if length(self.common(path, both[slot])) >= claimed}
        return Match(held, holders, claimed, frozenset(claimers - self.holding(path, claimed)))

    def longest(self, path: list[Piece], of: dict[int, list[Piece]]) -> tuple[int, frozenset[int]]:
        commons = {slot: length(self.common(path, own)) for slot, own in of.items()}
        most = max(commons.values(), default=0)
        return most, frozenset(slot for slot in commons if commons[slot] == most and most)

    def holding(self, path: list[Piece], tokens: int) -> set[int]:
        return {slot for slot in SLOTS if length(self.common(path, self.held[slot])) >= tokens}

    def common(self, path: list[Piece], own: list[Piece]) -> list[Piece]:
        count = 0
        while count < min(len(path), len(own)) and path[count] == own[count]:
            count += 1
        return path[:count]

    @rule(path=paths)
    def commons_of_all_slots(self, path: list[Piece]) -> None:
        held, claimed = self.tree.commons(path)
        assert held == {slot: tokens for slot in SLOTS if (tokens := self.common_with_tail(slot, path))}
        claims = {slot: self.common(path, self.held[slot] + self.claimed[slot]) for slot in SLOTS}
        assert claimed == {slot: length(claims[slot]) for slot in SLOTS if len(claims[slot]) > len(self.held[slot])}

    @rule(slot=slots, rest=paths)
    def commons_with_the_content_of_a_slot(self, slot: int, rest: list[Piece]) -> None:
        self.commons_of_all_slots([*self.held[slot], *rest])
        if self.tails[slot]:
            self.commons_of_all_slots([*self.held[slot], (*self.tails[slot], 1, 1), *rest])

    def common_with_tail(self, slot: int, path: list[Piece]) -> int:
        shared = self.common(path, self.held[slot])
        if not shared or shared == path:
            return length(shared)
        follows, wanted = self.following(slot, len(shared)), path[len(shared)]
        if self.divisible:
            return length(shared) + shared_tokens(follows, wanted)
        is_tail = shared == self.held[slot]
        return length(shared) + (len(follows) if is_tail and wanted[: len(follows)] == follows else 0)

    @invariant()
    def counts_held_tokens(self) -> None:
        assert [self.tree.tokens(slot) for slot in SLOTS] == [length(self.held[slot]) for slot in SLOTS]

    @invariant()
    def keeps_nothing_that_is_unused(self) -> None:
        needed = {
            tuple(path[: count + 1])
            for slot in SLOTS
            for path in [self.held[slot] + self.claimed[slot]]
            for count in range(len(path))
        }
        assert _size(self.tree) == len(needed)

    def teardown(self) -> None:
        for slot in SLOTS:
            self.tree.cut(slot, 0)
        assert _size(self.tree) == 0


def shared_tokens(one: Piece, other: Piece) -> int:
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def _size(tree: PrefixTree) -> int:
    """Nodes below the root: that there are no more than needed shows nowhere else."""
    count, nodes = 0, [tree._root]
    while nodes:
        children = list(nodes.pop().children.values())
        count += len(children)
        nodes += children
    return count


TestTree = TreeMachine.TestCase
TestTree.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)

A, B, C = (1, 2), (3, 4), (5, 6)


def test_an_empty_tree_matches_nothing() -> None:
    assert PrefixTree().match([A, B]) == Match(0)


def test_a_claimed_prefix_is_not_held_yet() -> None:
    tree = PrefixTree()
    tree.claim(0, [A, B])
    tree.fulfil(0)
    assert tree.match([A, B, C]) == Match(2, frozenset([0]), 4, frozenset([0]))


def test_a_held_prefix_survives_later_claims() -> None:
    tree = PrefixTree()
    tree.claim(0, [A, B])
    tree.fulfil(0)
    tree.unclaim(0)
    assert tree.match([A, B]) == Match(2, frozenset([0]), 2)


def test_a_prefix_cut_from_one_slot_may_be_held_by_another() -> None:
    tree = PrefixTree()
    tree.claim(0, [A, B])
    tree.fulfil(0)
    tree.fulfil(0)
    tree.copy(0, 1, 2)
    tree.cut(0, 0)
    assert tree.match([A, B]) == Match(2, frozenset([1]), 2)
    assert (tree.tokens(0), tree.commons([A, C])) == (0, ({1: 2}, {}))


@given(st.lists(pieces, min_size=1, max_size=4))
def test_prefixes_with_different_marks_share_nothing(path: list[Piece]) -> None:
    marked, same, other = set_apart(path, (0.5,)), set_apart(path, (0.5,)), set_apart(path, (1.0,))
    assert marked == same
    assert [len(piece) for piece in marked] == [len(piece) for piece in path]
    assert len({marked[0], other[0], path[0]}) == 3


def test_no_part_of_an_image_is_shared_and_no_end_of_a_prompt() -> None:
    tree = PrefixTree(divisible=True)
    tree.hold(0, [A, (-7, -8, -9)])
    assert tree.commons([A, (-7, -8, -10)])[0] == {0: 2}
    assert tree.commons([A, (-7, WHOLE)])[0] == {0: 2}
    tree.hold(0, [B])
    assert tree.commons([A, (-7, -8, -9), (3, WHOLE)])[0] == {0: 6}
