"""A draft model's bookkeeping, on a context that rejects gaps and overlaps, and with a batcher."""

from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import DecodeFailed
from tests.support.worker.batching import Batching, Call, draft_model, solo
from tests.support.worker.byte_vocabulary import SIZE, byte_tokenizer
from tests.support.worker.fake_context import FakeContext
from tests.support.worker.written_text import WrittenText
from worker.engine.constraint.constraint_matcher import Matcher
from worker.engine.constraint.sandboxed_compile import start_matcher
from worker.engine.speculation.draft_model import LEAST_READ, common_length, confident_token, plan_reading
from worker.engine.speculation.drafting import DraftRequest

SURE = 1e6
TOKENIZER = byte_tokenizer()


def prompt(kind: int, length: int) -> list[int]:
    return [(kind * 31 + at * 7) % 200 + 20 for at in range(length)]


@cache
def endless(number: int, *, plainly: bool = False) -> list[int]:
    """A prompt whose completion is long."""
    completions = ((kind, solo(tuple(prompt(kind, 30)), 40, exact=True, plainly=plainly)) for kind in range(40, 250))
    kinds = (kind for kind, completion in completions if len(completion) == 40)
    return prompt(next(islice(kinds, number, None)), 30)


def sure_context(slots: int = 4, capacity: int | None = None) -> FakeContext:
    return FakeContext(slots, rounding=False, sharpness=SURE, capacity=capacity)


def continuation(text: list[int], count: int) -> list[int]:
    """The model's own continuation; it contains no end token."""
    return solo(tuple(text), count, exact=True, plainly=True)


# One text.


def test_drafts_are_the_models_own_continuation() -> None:
    drafter = draft_model(sure_context())
    text = WrittenText(prompt(1, 50))
    (guesses,) = drafter.propose([DraftRequest(2, text, 5)])
    expected = continuation(text.tokens, 5)
    assert guesses == expected
    assert len(guesses) > 1


def test_an_accepted_draft_is_not_computed_again() -> None:
    context = sure_context()
    drafter = draft_model(context)
    text = WrittenText(prompt(1, 50))
    (guesses,) = drafter.propose([DraftRequest(0, text, 4)])
    text.tokens += guesses
    drafter.propose([DraftRequest(0, text, 1)])
    assert context.calls[-1].tokens == 1  # the last draft token was never computed


def test_tokens_after_a_rejected_draft_are_removed() -> None:
    context = sure_context()
    drafter = draft_model(context)
    text = WrittenText(prompt(1, 50))
    (guesses,) = drafter.propose([DraftRequest(0, text, 4)])
    text.tokens += [guesses[0], (guesses[1] + 1) % 200]
    (again,) = drafter.propose([DraftRequest(0, text, 3)])
    assert again == continuation(text.tokens, 3)
    assert [cell.token for cell in context.cells[0]][: len(text.tokens)] == text.tokens


def test_an_unconfident_model_drafts_nothing() -> None:
    drafter = draft_model(FakeContext(1, rounding=False), slots=1)
    assert drafter.propose([DraftRequest(0, WrittenText(prompt(1, 50)), 4)]) == [[]]


def test_a_long_text_is_computed_over_several_steps_before_drafting() -> None:
    context = sure_context()
    drafter = draft_model(context, read=64)
    text = WrittenText(prompt(1, 300))
    found = []
    while not found:
        (found,) = drafter.propose([DraftRequest(0, text, 4)])
        text.tokens.append(33)  # the stream continues meanwhile
        assert context.calls[-1].tokens <= 64
    assert found == continuation(text.tokens[:-1], 4)
    assert sum(call.tokens for call in context.calls) == len(text.tokens) - 1 + 3


def test_prefill_never_exceeds_a_batch() -> None:
    context = sure_context()
    drafter = draft_model(context, read=4000, room=100)
    drafter.propose([DraftRequest(0, WrittenText(prompt(1, 300)), 4)])
    assert context.calls[-1].tokens == 100


# Several texts.


def test_several_texts_are_drafted_with_one_call_per_token() -> None:
    context = sure_context()
    drafter = draft_model(context)
    texts = [WrittenText(prompt(kind, 40)) for kind in (1, 2, 3)]
    found = drafter.propose([DraftRequest(slot, text, 4) for slot, text in zip((3, 0, 2), texts, strict=True)])
    assert found == [continuation(text.tokens, 4) for text in texts]
    assert len(context.calls) <= 4
    assert context.calls[1].slots == (0, 2, 3)


def test_a_short_text_does_not_wait_for_a_long_one() -> None:
    drafter = draft_model(sure_context(), read=64)
    long, short = WrittenText(prompt(1, 1000)), WrittenText(prompt(2, 20))
    found = drafter.propose([DraftRequest(0, long, 4), DraftRequest(1, short, 4)])
    assert found == [None, continuation(short.tokens, 4)]


def test_the_next_text_of_a_slot_reuses_a_common_prefix() -> None:
    context = sure_context()
    drafter = draft_model(context)
    drafter.propose([DraftRequest(0, WrittenText(prompt(1, 100)), 4)])
    drafter.forget(0)
    before = len(context.calls)
    longer = prompt(1, 100) + prompt(2, 30)
    (guesses,) = drafter.propose([DraftRequest(0, WrittenText(longer), 4)])
    assert guesses == continuation(longer, 4)
    assert context.calls[before].tokens <= 31


def test_a_finished_text_frees_its_part_of_a_shared_cache() -> None:
    context = sure_context(capacity=100)
    drafter = draft_model(context, keep=False)
    for kind in range(6):
        drafter.propose([DraftRequest(kind % 4, WrittenText(prompt(kind, 60)), 4)])
        drafter.forget(kind % 4)
    assert not any(context.cells)


def test_after_a_failure_the_text_is_computed_again() -> None:
    context = sure_context()
    drafter = draft_model(context)
    text = WrittenText(prompt(1, 50))
    context.fails = lambda call: True
    with pytest.raises(DecodeFailed):
        drafter.propose([DraftRequest(0, text, 4)])
    context.fails = lambda call: False
    assert drafter.propose([DraftRequest(0, text, 4)]) == [continuation(text.tokens, 4)]


# With a batcher.


def drafting(slots: int = 4, *, most: int = 4, read: int = 2048, **options: Any) -> tuple[Batching, FakeContext]:
    """A model that is its own draft model, and the draft's context."""
    context = sure_context(slots, options.get("capacity"))
    keep = options.get("reuse", True)
    drafter = draft_model(context, read=read, slots=slots, keep=keep)
    return Batching(slots, exact=True, draft_tokens=most, drafter=drafter, **options), context


def statistics(call: Call) -> tuple[int, int]:
    found = call.finished[0].statistics
    return found.draft_tokens, found.accepted_draft_tokens


@pytest.mark.parametrize("most", [1, 4, 16])
def test_a_model_drafting_for_itself_is_always_accepted_and_changes_no_token(most: int) -> None:
    batching, _ = drafting(1, most=most)
    for number in range(4):
        call = batching.submit(endless(number, plainly=True), max_tokens=40, repeat_penalty=1.0)
        batching.finish()
        drafted, accepted = statistics(call)
        assert drafted == accepted > 0
        assert call.tokens() == solo(call.prompt, 40, exact=True, plainly=True)


def test_drafts_change_no_randomly_sampled_token() -> None:
    batching, _ = drafting(4)
    calls = [batching.submit(prompt(kind, 30), max_tokens=30, temperature=1.5) for kind in range(12)]
    batching.finish()
    assert all(call.tokens() == solo(call.prompt, 30, temperature=1.5, exact=True) for call in calls)


def test_sequences_that_cannot_draft_run_beside_those_that_do() -> None:
    matcher = Matcher(start_matcher(TOKENIZER, 'start: "{" /[a-z]{8}/ "}"'), SIZE, DecodeFailed)
    alone = Batching(1, exact=True).run(endless(1), matcher=matcher.copy(), max_tokens=20)
    batching, _ = drafting(3)
    free = batching.submit(endless(0), max_tokens=40)
    bound = batching.submit(endless(1), max_tokens=20, matcher=matcher)
    scored = batching.submit(endless(2), max_tokens=40, logprobs=2)
    batching.finish()
    assert free.tokens() == solo(free.prompt, 40, exact=True)
    assert bound.tokens() == alone
    assert scored.tokens() == solo(scored.prompt, 40, exact=True)
    assert statistics(free) > (0, 0)
    assert statistics(bound) == statistics(scored) == (0, 0)


def test_a_cancelled_sequence_frees_its_slot_for_another_text() -> None:
    batching, _ = drafting(1)
    first = batching.submit(endless(0), max_tokens=200)
    while not first.counts[0]:
        batching.step()
    first.cancel()
    other = batching.submit(endless(1), max_tokens=40)
    batching.finish()
    assert other.tokens() == solo(other.prompt, 40, exact=True)


def test_a_failed_draft_ends_only_the_sequences_that_were_drafted_for() -> None:
    batching, context = drafting(2, reuse=False, capacity=2000)
    free = batching.submit(endless(0), max_tokens=40)
    scored = batching.submit(endless(2), max_tokens=40, logprobs=0)
    context.fails = lambda call: True
    batching.finish()
    assert isinstance(free.error, DecodeFailed)
    assert scored.tokens() == solo(scored.prompt, 40, exact=True)


def test_drafted_tokens_fit_into_a_shared_cache() -> None:
    """Both contexts check it at every call."""
    batching, _ = drafting(4, reuse=False, capacity=300)
    calls = [batching.submit(prompt(kind, 40 + kind), max_tokens=20) for kind in range(40, 52)]
    batching.finish()
    assert all(call.tokens() == solo(call.prompt, 20, exact=True) for call in calls)


# Decisions.


def test_the_shortest_text_is_computed_first_within_a_steps_budget() -> None:
    assert plan_reading([100, 2, 30], 64) == [32, 2, 30]
    assert plan_reading([1, 2], LEAST_READ) == [1, 2]
    assert plan_reading([], 64) == []


@given(first=st.lists(st.integers(0, 2), max_size=6), second=st.lists(st.integers(0, 2), max_size=6))
def test_the_common_prefix_of_two_lists_is_measured(first: list[int], second: list[int]) -> None:
    length = common_length(first, second)
    assert first[:length] == second[:length]
    assert length == min(len(first), len(second)) or first[length] != second[length]


def test_a_token_is_confident_above_a_probability_of_three_quarters() -> None:
    def logits(probability: float) -> Any:
        return np.log(np.array([0.1 * (1 - probability), probability, 0.9 * (1 - probability)], np.float32))

    assert confident_token(logits(0.76)) == 1
    assert confident_token(logits(0.74)) is None
