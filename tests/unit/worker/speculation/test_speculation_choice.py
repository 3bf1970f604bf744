"""Speculation follows how well it guesses: on where it gains, off where it does not, for each text by itself."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from tests.support.worker.batching import SteadyCosts
from tests.support.worker.written_text import WrittenText
from worker.engine.speculation.acceptance_rates import AcceptanceRates, Evidence
from worker.engine.speculation.answer_pool import AnswerPool
from worker.engine.speculation.drafting import DecodingText, DraftRequest, Outlook
from worker.engine.speculation.guessed_text import Guess, GuessedText
from worker.engine.speculation.prompt_lookup import LookupDrafter
from worker.engine.speculation.speculation import PROBED_STEPS, PROBED_TOKENS, Speculation
from worker.engine.speculation.step_times import StepTimes

MOST = 8


class AffineCosts(SteadyCosts):
    """A step has a fixed cost, and one for each row."""

    fixed, row = 0.6, 0.4

    def decode_seconds(self, tokens: int) -> float:
        return self.fixed + self.row * tokens


@dataclass
class Stream:
    """A text that a model writes: `next_token` is given what is written so far."""

    text: WrittenText
    next_token: Callable[[list[int]], int]
    drafted: int = 0
    accepted: int = 0

    def take(self, drafts: Sequence[int]) -> None:
        """A step: the tokens that are right, and the one after them."""
        self.drafted += len(drafts)
        for draft in drafts:
            token = self.next_token(self.text.tokens)
            self.text.tokens.append(token)
            if token != draft:
                return
            self.accepted += 1
        self.text.tokens.append(self.next_token(self.text.tokens))


def write(speculation: Speculation, streams: Sequence[Stream], steps: int) -> None:
    for _ in range(steps):
        drafts = speculation.drafts([stream.text for stream in streams])
        for stream in streams:
            stream.take(drafts.get(stream.text.slot, ()))


def lookup(costs: SteadyCosts, pool: AnswerPool | None = None) -> Speculation:
    return Speculation(LookupDrafter(pool), MOST, StepTimes(costs))


def unpredictable(seed: int, vocabulary: int = 12) -> Callable[[list[int]], int]:
    """Few tokens, so that pairs of them recur all the time, and say nothing about the next one."""
    source = random.Random(seed)
    return lambda written: source.randrange(vocabulary)


def quoting(passage: Sequence[int], start: int) -> Callable[[list[int]], int]:
    """Repeats a passage from the beginning, once and again, after the first `start` tokens of the text."""
    return lambda written: passage[(len(written) - start) % len(passage)]


PASSAGE = random.Random(3).sample(range(1000), 100)


def quoted(slot: int = 0, quoted_tokens: int = 2) -> Stream:
    prompt = [*PASSAGE, 2000, *PASSAGE[:quoted_tokens]]
    return Stream(WrittenText(prompt, slot, "", len(prompt)), quoting(PASSAGE, len(PASSAGE) + 1))


def test_a_text_that_quotes_its_prompt_is_drafted() -> None:
    stream = quoted()
    write(lookup(AffineCosts()), [stream], 30)
    assert stream.accepted > 3 * 30
    assert stream.accepted > 0.9 * stream.drafted


def test_an_unpredictable_text_is_practically_not_drafted() -> None:
    stream = Stream(WrittenText([1, 2, 3, 4]), unpredictable(1))
    speculation = lookup(AffineCosts())
    write(speculation, [stream], 100)
    before = stream.drafted
    write(speculation, [stream], 1000)
    assert stream.drafted - before <= 0.02 * 1000


def test_where_rows_cost_a_step_nothing_is_drafted() -> None:
    costs = AffineCosts(fixed=0.0, row=1.0)
    stream = quoted()
    write(lookup(costs), [stream], 50)
    assert stream.drafted == 0


def test_a_text_that_begins_to_quote_is_drafted_again_without_a_probe() -> None:
    """What could be drafted is compared with the text all the time."""
    prompt = [*PASSAGE, 2000]
    source = unpredictable(2)
    stream = Stream(WrittenText(list(prompt)), source)
    speculation = lookup(AffineCosts())
    write(speculation, [stream], 400)
    drafted, length = stream.drafted, len(stream.text.tokens)
    stream.next_token = quoting(PASSAGE, length)
    write(speculation, [stream], 20)
    assert stream.accepted > 60
    assert stream.drafted - drafted < 1.3 * stream.accepted


def test_each_text_is_judged_by_itself() -> None:
    texts = [quoted(0), Stream(WrittenText([1, 2, 3, 4], 1), unpredictable(4))]
    speculation = lookup(AffineCosts(fixed=0.9, row=0.1))
    write(speculation, texts, 60)
    assert texts[0].accepted > 60
    assert texts[1].drafted < 0.2 * texts[0].drafted


def test_an_answer_serves_the_same_clients_next_one() -> None:
    def answered(key: str) -> Stream:
        prompt = random.Random(key).sample(range(2000, 3000), 20)
        return Stream(WrittenText([*prompt, *PASSAGE[:2]], 0, key, 20), quoting(PASSAGE, 20))

    speculation = lookup(AffineCosts(), AnswerPool())
    first, second, other = answered("a"), answered("a"), answered("b")
    for stream in (first, second, other):
        write(speculation, [stream], 40)
        speculation.forget(0)
    assert first.accepted == other.accepted == 0
    assert second.accepted > 25


def test_drafts_are_cut_where_the_constraint_does_not_let_them_follow() -> None:
    stream = quoted(quoted_tokens=12)
    stream.text.forbidden = PASSAGE[15]
    drafts = lookup(AffineCosts(row=0.0)).drafts([stream.text])
    assert drafts[0] == PASSAGE[12:15]


def test_a_text_that_cannot_be_drafted_is_not_followed() -> None:
    stream = quoted()
    stream.text.draft_room = 0
    assert lookup(AffineCosts(row=0.0)).drafts([stream.text]) == {}


# A drafter whose tokens take time to find.


@dataclass
class Slow:
    """Drafts the same token again and again."""

    token: int
    reading: bool = False
    draft_seconds: float = 0.0
    asked: list[int] = field(default_factory=list)

    def expected_rate(self, evidence: Evidence) -> float:
        return 0.6

    def outlook(self, slot: int, text: DecodingText, most: int) -> Outlook:
        return Outlook(["slow"] * most)

    def propose(self, requests: Sequence[DraftRequest]) -> list[list[int] | None]:
        self.asked += [request.count for request in requests]
        return [None if self.reading else [self.token] * request.count for request in requests]

    def forget(self, slot: int) -> None:
        pass


def test_a_drafter_that_is_wrong_is_asked_now_and_then() -> None:
    drafter = Slow(1)
    stream = Stream(WrittenText([5]), lambda written: 5)
    speculation = Speculation(drafter, MOST, StepTimes(AffineCosts()))
    write(speculation, [stream], 1000)
    assert stream.accepted == 0
    probes = 1000 / PROBED_STEPS
    assert probes / 2 < len(drafter.asked) < probes + 30
    assert drafter.asked[-1] == PROBED_TOKENS


def test_a_drafter_that_becomes_right_is_asked_for_more() -> None:
    drafter = Slow(1)
    stream = Stream(WrittenText([5]), lambda written: 5)
    speculation = Speculation(drafter, MOST, StepTimes(AffineCosts()))
    write(speculation, [stream], 300)
    drafter.token = 5
    write(speculation, [stream], 20 * PROBED_STEPS)
    before = stream.accepted
    write(speculation, [stream], 10)
    assert stream.accepted - before >= 10 * MOST / 2


def test_a_text_that_is_still_being_read_counts_as_no_miss() -> None:
    drafter = Slow(5, reading=True)
    stream = Stream(WrittenText([5]), lambda written: 5)
    speculation = Speculation(drafter, MOST, StepTimes(AffineCosts()))
    write(speculation, [stream], 50)
    drafter.reading = False
    write(speculation, [stream], 10)
    assert stream.accepted > 20


# Rates.


def test_rates_start_from_what_is_expected_and_follow_what_is_measured() -> None:
    rates = AcceptanceRates(lambda evidence: 0.5, weight=4, memory=20)
    assert rates.rate("any") == 0.5
    for _ in range(100):
        rates.add("one", right=True)
        rates.add("other", right=False)
    assert rates.rate("one") > 0.9
    assert rates.rate("other") < 0.1
    for _ in range(40):
        rates.add("one", right=False)
    assert rates.rate("one") < 0.2


@pytest.mark.parametrize(
    ("guessed", "right", "wrong"),
    [([7, 8, 9], 3, 0), ([7, 1, 9], 1, 1), ([1, 8, 9], 0, 1), ([7, None], 1, 1), ([7, 8, 9, 1], 3, 0)],
)
def test_a_guess_counts_up_to_its_first_wrong_token(guessed: list[int | None], right: int, wrong: int) -> None:
    seen: list[bool] = []

    class Recording(AcceptanceRates):
        def add(self, evidence: Evidence, *, right: bool) -> None:
            seen.append(right)

    text = GuessedText(Recording(lambda evidence: 0.5, weight=1, memory=10))
    text.expect(Guess(2, guessed, ["any"] * len(guessed)))
    text.settle(WrittenText([1, 2, 7, 8, 9]))
    text.settle(WrittenText([1, 2, 7, 8, 9]))
    assert (seen.count(True), seen.count(False)) == (right, wrong)


@pytest.mark.parametrize(
    ("joined", "unified", "seconds"),
    [(True, True, 6), (True, False, 3 + 3), (False, True, 2 + 4), (False, False, 2 + 4)],
)
def test_a_step_takes_as_long_as_its_graphs(joined: bool, unified: bool, seconds: float) -> None:
    times = StepTimes(AffineCosts(fixed=0.0, row=1.0), joined, unified)
    assert times.of([0, 1, 2], [1, 1, 1])([3, 0, 0]) == seconds
