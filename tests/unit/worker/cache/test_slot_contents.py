"""What slots hold, on a context that cannot be cut at any token, compared with a model made of plain lists."""

from itertools import pairwise, takewhile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.worker.fake_context import FakeContext
from worker.engine.cache.checkpoints import Checkpoints
from worker.engine.cache.prefix_tree import WHOLE, Piece
from worker.engine.cache.slot_contents import SlotContents
from worker.engine.model.decode_run import Run

BLOCK = 3
SLOTS = range(3)
slots = st.sampled_from(SLOTS)
texts = st.lists(st.integers(1, 2), min_size=1, max_size=14)
Text = list[int]


def pieces(text: Text, start: int = 0) -> list[Piece]:
    return [tuple(text[at : at + BLOCK]) for at in range(start, len(text) - BLOCK + 1, BLOCK)]


def claims(prompt: Text) -> list[Piece]:
    """A prompt's pieces; the last one has one token at least."""
    whole = pieces(prompt[:-1])
    return [*whole, (*prompt[len(whole) * BLOCK :], WHOLE)]


class ContentsMachine(RuleBasedStateMachine):
    """The model: `texts` are what the sequences hold, of which slots know all, or the whole blocks alone."""

    @initialize(window=st.sampled_from([1, 2, 5]), most=st.integers(0, 3), divisible=st.booleans())
    def start(self, window: int, most: int, divisible: bool) -> None:
        self.context = FakeContext(len(SLOTS), rounding=False, window=window)
        context: Any = self.context
        self.contents = SlotContents(context, Checkpoints(most, len(SLOTS)), divisible=divisible)
        self.most = most
        self.texts: dict[int, Text] = {slot: [] for slot in SLOTS}
        self.known: dict[int, bool] = dict.fromkeys(SLOTS, True)
        self.states: list[tuple[list[Piece], Any]] = []

    @rule(slot=slots, prompt=texts, copies=st.booleans(), places=st.sets(st.integers(1, 4)), stop=st.integers(0, 14))
    def run_a_prompt(self, slot: int, prompt: Text, copies: bool, places: set[int], stop: int) -> None:
        """In a slot, from what it shares with it or another, up to a token; with checkpoints after some blocks."""
        own = claims(prompt)
        self.contents.shorten(slot, own)
        match = self.contents.match(own)
        reusable = self.contents.reusable(own)
        assert match.held == max(reusable.values(), default=0)
        assert all(reusable[holder] == match.held for holder in match.holders)
        begun = reusable.get(slot, 0)
        if copies and match.held > begun:
            begun = match.held
            self.contents.copy(min(match.holders), slot, begun)
        else:
            self.contents.resume(slot, begun)
        assert self.tokens(slot) == prompt[:begun]
        self.contents.claim(slot, own[self.contents.depth(slot) :])
        self.compute(slot, prompt, begun, max(begun, min(stop, len(prompt))), {BLOCK * place for place in places})
        self.contents.unclaim(slot)

    def compute(self, slot: int, prompt: Text, start: int, end: int, places: set[int]) -> None:
        ends = sorted({at for at in range(BLOCK, len(prompt), BLOCK) if start < at <= end})
        for first, last in pairwise([start, *ends, *([end] if end not in (start, *ends) else [])]):
            self.context.decode_runs([Run(slot, prompt[first:last], first, last - first)])
            if last in ends:
                self.contents.fulfil(slot)
                if last in places:
                    self.contents.checkpoint(slot, last)
        self.texts[slot] = prompt[:end]
        self.known[slot] = False

    @rule(slot=slots, answer=texts)
    def answer_a_prompt(self, slot: int, answer: Text) -> None:
        """What a slot computes beyond its prompt is kept."""
        text = self.texts[slot] + answer
        before = len(self.texts[slot])
        self.context.decode_runs([Run(slot, [token], before + at, 0) for at, token in enumerate(answer)][:1])
        for at, token in enumerate(answer[1:], before + 1):
            self.context.decode_runs([Run(slot, [token], at, 0)])
        held = self.contents.tokens(slot)
        blocks = pieces(text, held)
        self.contents.hold(slot, blocks, tuple(text[held + BLOCK * len(blocks) :]))
        self.texts[slot], self.known[slot] = text, len(text) >= BLOCK

    @rule(slot=slots)
    def save(self, slot: int) -> None:
        saved = self.contents.savable(slot)
        if saved:
            tokens = sum(map(len, saved))
            self.contents.resume(slot, tokens)
            self.states.append((saved, self.context.state(slot)))
            self.texts[slot], self.known[slot] = self.texts[slot][:tokens], True

    @rule(slot=slots, data=st.data())
    def restore(self, slot: int, data: Any) -> None:
        if self.states:
            saved, state = data.draw(st.sampled_from(self.states))
            self.contents.restore(slot, saved, state)
            self.texts[slot], self.known[slot] = [token for piece in saved for token in piece], True
            assert self.tokens(slot) == self.texts[slot]

    @rule(slot=slots)
    def fail(self, slot: int) -> None:
        self.contents.empty(slot)
        assert self.contents.tokens(slot) == 0
        self.context.keep_prefix(slot, 0)
        self.texts[slot], self.known[slot] = [], True

    @invariant()
    def what_a_slot_holds_to_its_end_is_continued(self) -> None:
        if not hasattr(self, "texts"):
            return
        for slot in SLOTS:
            text = self.texts[slot]
            assert self.tokens(slot) == text
            if self.known[slot] and len(text) >= BLOCK:
                assert self.contents.reusable(claims([*text, 3, 3, 3]))[slot] == len(text)

    def tokens(self, slot: int) -> Text:
        return [cell.token for cell in self.context.cells[slot]]


TestContents = ContentsMachine.TestCase
TestContents.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(length=st.integers(BLOCK, 14), place=st.integers(1, 4), asked=st.integers(0, 14), divisible=st.booleans())
def test_a_recurrent_state_is_continued_at_its_end_and_at_checkpoints_alone(
    length: int, place: int, asked: int, divisible: bool
) -> None:
    machine = ContentsMachine()
    machine.start(window=1, most=1, divisible=divisible)
    text = [1 + at % 2 for at in range(length)]
    machine.run_a_prompt(0, [*text, 3], copies=False, places={place}, stop=length)
    whole = asked >= length and length % BLOCK == 0
    expected = length if whole else BLOCK * place if BLOCK * place <= min(asked, length) else 0
    assert machine.contents.reusable(claims([*text[:asked], 4, 4])).get(0, 0) == expected


@given(text=texts, prompt=texts, end=st.integers(0, 14))
def test_a_cache_without_a_window_is_continued_from_all_that_is_shared(text: Text, prompt: Text, end: int) -> None:
    """From a whole block on: what is shorter is not looked for."""
    context: Any = FakeContext(2, rounding=False)
    contents = SlotContents(context, None, divisible=True)
    context.decode_runs([Run(0, text, 0, len(text))])
    contents.hold(0, pieces(text), tuple(text[len(text) - len(text) % BLOCK :]))
    contents.resume(0, min(end, len(text)))
    both = zip(text[:end], prompt[:-1], strict=False)
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], both)))
    expected = shared if shared >= BLOCK else 0
    assert contents.reusable(claims(prompt)).get(0, 0) == expected
    assert contents.match(claims(prompt)).held == expected
    contents.copy(0, 1, expected)
    assert contents.reusable(claims(prompt)).get(1, 0) == expected
