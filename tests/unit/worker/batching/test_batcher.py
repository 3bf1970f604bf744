"""Continuous batching on a context whose logits depend on its cache: concurrent calls change no token."""

from collections.abc import Iterator
from functools import cache
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.errors import DecodeFailed, Draining, InvalidGrammar
from atelier.generation_types import StopReason
from atelier.submission import Echo
from tests.support.worker.batching import BORDER, GRID, Batching, Call, SteadyCosts, draft_model, solo
from tests.support.worker.byte_vocabulary import SIZE, byte_tokenizer
from tests.support.worker.fake_context import Computed, FakeContext
from worker.engine.batching.batch_plan import BatchLimits
from worker.engine.batching.prompt_prefill import SCORED_TOKENS
from worker.engine.constraint.constraint_matcher import Matcher
from worker.engine.constraint.sandboxed_compile import start_matcher
from worker.engine.model.decode_run import Run
from worker.engine.prompt.prompt_slices import TAIL
from worker.engine.sampling.logprobs import token_logprobs

TOKENIZER = byte_tokenizer()
LONG_RUN = 200  # tokens


def prompt(kind: int, length: int) -> tuple[int, ...]:
    """Different kinds differ from the first token on."""
    return tuple((kind * 31 + at * 7) % 200 + 20 for at in range(length))


SYSTEM = (BORDER, *prompt(1, 90), BORDER)
CHAT = SYSTEM + prompt(2, 60)
OTHER_CHAT = SYSTEM + prompt(3, 70)


def agrees(call: Call) -> bool:
    """Every choice has the tokens that it has where nothing else runs."""
    assert call.complete
    choices = range(len(call.texts))
    return all(call.tokens(choice) == solo(call.prompt, call.max_tokens, choice) for choice in choices)


def streaming(batching: Batching, count: int) -> list[Call]:
    """Long-running calls that have begun to answer."""
    calls = [batching.submit(endless(number), max_tokens=LONG_RUN) for number in range(count)]
    while not all(call.counts[0] for call in calls):
        batching.step()
    return calls


@cache
def endless(number: int, *, exact: bool = False) -> tuple[int, ...]:
    """A prompt whose completion is long."""
    kinds = (kind for kind in range(40, 250) if len(solo(prompt(kind, 20), LONG_RUN, exact=exact)) > 40)
    return prompt(next(islice(kinds, number, None)), 20)


# The same tokens under all circumstances.


def test_the_same_prompt_alone_and_in_company_gives_the_same_tokens() -> None:
    batching = Batching(4)
    calls = [batching.submit(prompt(kind, 20 * kind)) for kind in range(1, 8)]
    batching.finish()
    assert all(agrees(call) for call in calls)


def test_a_prompt_that_is_reused_gives_the_same_tokens() -> None:
    batching = Batching(2)
    first, second = batching.run(CHAT), batching.submit(CHAT)
    batching.finish()
    assert second.tokens() == first == solo(CHAT)
    assert second.finished[0].statistics.cached_tokens == SYSTEM_END


SYSTEM_END = 91  # SYSTEM's last token, a border, begins a slice here


def test_a_prompt_that_extends_another_gives_the_same_tokens() -> None:
    batching = Batching(1)
    batching.run(CHAT)
    longer = batching.submit(CHAT + prompt(4, 300))
    batching.finish()
    assert agrees(longer)
    assert longer.finished[0].statistics.cached_tokens >= SYSTEM_END


def test_a_prefix_is_copied_from_the_slot_of_a_running_sequence() -> None:
    batching = Batching(2)
    first = batching.submit(CHAT, max_tokens=30)
    while not first.counts[0]:
        batching.step()
    second = batching.submit(OTHER_CHAT)
    batching.finish()
    assert agrees(first)
    assert agrees(second)
    assert second.finished[0].statistics.cached_tokens == SYSTEM_END
    assert len(batching.context.copies) == 1


def test_tokens_computed_after_a_copied_prefix_are_reused_too() -> None:
    batching = Batching(2)
    batching.submit(CHAT, max_tokens=30)
    batching.run(SYSTEM + prompt(3, 200))
    assert batching.context.copies
    again = batching.submit(SYSTEM + prompt(3, 300))
    batching.finish()
    assert agrees(again)
    assert again.finished[0].statistics.cached_tokens == SYSTEM_END + 2 * GRID


def test_a_prompt_submitted_while_another_computes_its_prefix_gives_the_same_tokens() -> None:
    batching = Batching(4)
    long = SYSTEM + prompt(5, 900)
    calls = [batching.submit(long)]
    batching.step()
    calls += [batching.submit(OTHER_CHAT), batching.submit(long + prompt(6, 40)), batching.submit(long)]
    batching.finish()
    assert all(agrees(call) for call in calls)
    assert _computed(batching) < 2 * len(long), "what one computes the others do not"


def _computed(batching: Batching) -> int:
    return sum(call.tokens for call in batching.context.calls if call.kind == "prompt")


def test_a_prompt_that_waited_for_a_cancelled_sequence_gives_the_same_tokens() -> None:
    batching = Batching(3)
    long = SYSTEM + prompt(5, 900)
    first, second, third = [batching.submit(long) for _ in range(3)]
    batching.step()
    first.cancel()
    batching.finish()
    assert agrees(second)
    assert agrees(third)
    assert not first.finished


def test_a_prompt_that_waited_for_a_failed_sequence_gives_the_same_tokens() -> None:
    batching = Batching(2)
    long = SYSTEM + prompt(5, 900)
    first, second = batching.submit(long), batching.submit(long + prompt(6, 40))
    batching.step()
    batching.context.fails = _once(lambda call: call.kind == "prompt")
    batching.finish()
    assert isinstance(first.error, DecodeFailed)
    assert agrees(second)
    assert second.finished[0].statistics.cached_tokens == 0


def _once(condition: Any) -> Any:
    def fails(call: Computed) -> bool:
        nonlocal left
        hit = left and condition(call)
        left = left and not hit
        return hit

    left = True
    return fails


@pytest.mark.parametrize("worth_copying", [1, 50, 10_000])
def test_choices_give_the_tokens_that_each_gives_alone(worth_copying: int) -> None:
    batching = Batching(3, costs=SteadyCosts(worth_copying=worth_copying))
    call = batching.submit(CHAT, choices=5)
    batching.finish()
    assert agrees(call)


def test_choices_compute_their_prompt_once() -> None:
    batching = Batching(4)
    call = batching.submit(CHAT, choices=4)
    batching.finish()
    assert _computed(batching) == len(CHAT)
    assert call.finished[3].statistics.cached_tokens == len(CHAT)


@pytest.mark.parametrize("reuse", [True, False])
def test_choices_with_random_sampling_differ_as_they_do_alone(reuse: bool) -> None:
    batching = Batching(4, reuse=reuse)
    call = batching.submit(CHAT, choices=4, temperature=1.5)
    batching.finish()
    tokens = [call.tokens(choice) for choice in range(4)]
    assert tokens == [solo(CHAT, choice=choice, temperature=1.5) for choice in range(4)]
    assert len(set(map(tuple, tokens))) > 1


def test_sampling_for_one_choice_does_not_change_the_logits_of_another() -> None:
    batching = Batching(3)
    call = batching.submit(CHAT, choices=3, logprobs=2, repeat_penalty=2.0)
    batching.finish()
    of_choice = [[logprob for choice, logprob in call.logprobs if choice == each] for each in range(3)]
    assert of_choice[0] == of_choice[1] == of_choice[2]
    assert len(of_choice[0]) == call.counts[0]


def test_every_choice_keeps_the_prompt_in_its_cache() -> None:
    batching = Batching(2)
    batching.submit(CHAT, choices=2)
    batching.finish()
    batching.run(prompt(3, 100))  # in the slot of the first
    again = batching.submit(CHAT)
    batching.finish()
    assert again.finished[0].statistics.cached_tokens == SYSTEM_END


@pytest.mark.parametrize("length", [1, 2, TAIL, GRID, GRID + TAIL - 1, GRID + TAIL, 1000])
def test_a_prompt_of_any_length_gives_the_same_tokens_again(length: int) -> None:
    batching = Batching(2)
    calls = [batching.submit(prompt(9, length), choices=2), batching.submit(prompt(9, length))]
    batching.finish()
    calls.append(batching.submit(prompt(9, length)))
    batching.finish()
    assert all(agrees(call) for call in calls)


def test_slices_computed_in_one_call_give_the_same_tokens() -> None:
    batching = Batching(2, exact=True)
    calls = [batching.submit(CHAT), batching.submit(OTHER_CHAT), batching.submit(CHAT + prompt(4, 300))]
    batching.finish()
    assert [call.tokens() for call in calls] == [solo(call.prompt, exact=True) for call in calls]


def test_slices_computed_in_one_call_fit_into_one_batch() -> None:
    batching = Batching(2, exact=True, costs=SteadyCosts(token_seconds=1e-5))
    batching.run(prompt(1, 6000))
    assert max(call.tokens for call in batching.context.calls) == 512  # a model's ubatch_size, unless it is set


def test_short_prompts_submitted_together_share_a_call_where_batching_does_not_change_results() -> None:
    batching = Batching(4, exact=True)
    calls = [batching.submit(prompt(kind, 30)) for kind in range(1, 5)]
    batching.step()
    assert [(call.slots, call.tokens) for call in batching.context.calls] == [((0, 1, 2, 3), 120)]
    batching.finish()
    assert [call.tokens() for call in calls] == [solo(call.prompt, exact=True) for call in calls]


def test_short_prompts_submitted_together_have_their_first_tokens_together() -> None:
    batching = Batching(4, exact=True)
    calls = [batching.submit(prompt(kind, 200), max_tokens=9) for kind in range(1, 5)]  # in steps of 4 times 128
    began = []
    for step in range(8):
        batching.step()
        began += [step for call in calls if call.counts[0] and len(began) < len(calls) and call.counts == [1]]
    assert began == [1, 1, 1, 1]


def test_what_follows_a_shared_beginning_is_computed_side_by_side() -> None:
    """The first one does not become a stream, beside which the others would be computed slowly."""
    batching = Batching(4, exact=True)
    calls = [batching.submit((*prompt(1, 200), *prompt(number, 40))) for number in range(2, 6)]
    batching.finish()
    assert [call.tokens() for call in calls] == [solo(call.prompt, exact=True) for call in calls]
    prompts = [(call.slots, call.tokens) for call in batching.context.calls if call.kind == "prompt"]
    assert prompts == [((0,), 200), ((0, 1, 2, 3), 160)]


def test_a_prompt_waits_for_its_burst_by_what_is_left_to_compute() -> None:
    """It may be a long chat, of which the last question alone is new."""
    batching = Batching(2, exact=True)
    batching.submit(prompt(1, 1000))
    assert 0.005 < batching.batcher.gathering(expected=False) <= 0.02
    batching.finish()
    batching.submit((*prompt(1, 1000), *prompt(2, 20)))
    assert batching.batcher.gathering(expected=False) <= 0.001


def test_as_many_prompts_as_there_are_slots_wait_for_no_other() -> None:
    batching = Batching(2, exact=True)
    batching.submit(prompt(1, 1000))
    assert batching.batcher.gathering(expected=True)
    batching.submit(prompt(2, 1000))
    assert not batching.batcher.gathering(expected=True)


def test_a_prompt_beside_streams_has_calls_of_its_own_as_long_as_they_may_pause() -> None:
    batching = Batching(2, exact=True)
    stream = batching.submit(endless(0, exact=True), max_tokens=60)
    while not stream.counts[0]:
        batching.step()
    newcomer = batching.submit(prompt(4, 148))  # 0.148 s, of which a step takes 0.1: twice the streams' own 0.05 s
    before = len(batching.context.calls)
    while not newcomer.finished:
        batching.step()
    calls = batching.context.calls[before : before + 4]
    assert [(call.slots, call.tokens) for call in calls] == [((0,), 1), ((1,), 100), ((0,), 1), ((1,), 48)]
    batching.finish()
    assert [call.tokens() for call in (stream, newcomer)] == [
        solo(stream.prompt, 60, exact=True),
        solo(newcomer.prompt, exact=True),
    ]


def test_a_stream_pauses_longer_when_more_prompts_wait() -> None:
    batching = Batching(4, exact=True)
    stream = batching.submit(endless(0, exact=True), max_tokens=60)
    while not stream.counts[0]:
        batching.step()
    newcomers = [batching.submit(prompt(number, 148)) for number in (4, 5, 6)]
    before = len(batching.context.calls)
    while not all(newcomer.finished for newcomer in newcomers):
        batching.step()
    tokens = [call.tokens for call in batching.context.calls[before : before + 2]]
    assert tokens == [1, 296]  # two prompts: all three would take longer than three times 0.1 s
    batching.finish()
    assert stream.tokens() == solo(stream.prompt, 60, exact=True)


def test_a_prompt_between_streams_shares_their_call() -> None:
    """Its first token makes them neighbours, which llama.cpp computes at once."""
    batching = Batching(3, exact=True)
    streams = [batching.submit(endless(0, exact=True), max_tokens=60) for _ in range(3)]
    while not all(stream.counts[0] for stream in streams):
        batching.step()
    streams[1].cancel()
    batching.submit(prompt(4, 148))
    batching.step()
    assert batching.context.calls[-1].slots == (0, 1, 2)


def test_a_prompt_has_separate_calls_where_decoding_rounds_differently() -> None:
    batching = Batching(2)
    stream = batching.submit(endless(0), max_tokens=60)
    while not stream.counts[0]:
        batching.step()
    newcomer = batching.submit(prompt(4, 150))
    while not newcomer.finished:
        batching.step()
    assert all(len(call.slots) == 1 for call in batching.context.calls if call.tokens > 2)


def test_a_conversation_reuses_decoded_tokens() -> None:
    batching = Batching(1, exact=True)
    first = endless(0, exact=True)
    answer = tuple(batching.run(first, max_tokens=30))
    second = batching.submit(first + answer + prompt(4, 40))
    batching.finish()
    assert second.tokens() == solo(second.prompt, exact=True)
    assert second.finished[0].statistics.cached_tokens == 49  # not the answer's last one, which was not computed


def test_a_prompt_that_was_computed_before_is_computed_from_its_last_token() -> None:
    """Wherever it ends, and whatever was said after it."""
    for length in range(41, 46):
        batching = Batching(2, exact=True)
        batching.submit(prompt(1, length), max_tokens=9)
        batching.finish()
        again = batching.submit(prompt(1, length))
        batching.finish()
        other = batching.submit((*prompt(1, length), *prompt(2, 9)))
        batching.finish()
        assert again.finished[0].statistics.cached_tokens == length - 1
        assert other.finished[0].statistics.cached_tokens == length
        assert again.tokens() == solo(again.prompt, exact=True)


def test_a_conversation_is_recomputed_where_decoding_rounds_differently() -> None:
    batching = Batching(1)
    answer = tuple(batching.run(CHAT, max_tokens=30))
    second = batching.submit(CHAT + answer + prompt(4, 40))
    batching.finish()
    assert agrees(second)
    assert second.finished[0].statistics.cached_tokens == SYSTEM_END


@pytest.mark.parametrize("draft_tokens", [1, 4, 16])
def test_accepted_drafts_save_calls_and_change_no_token(draft_tokens: int) -> None:
    batching = Batching(1, exact=True, draft_tokens=draft_tokens, mumbles=True)
    call = batching.submit(CHAT, max_tokens=60)
    batching.finish()
    statistics = call.finished[0].statistics
    assert call.tokens() == solo(CHAT, 60, exact=True, mumbles=True)
    assert 0 < statistics.accepted_draft_tokens < statistics.draft_tokens
    assert len(batching.context.calls) == 1 + 59 - statistics.accepted_draft_tokens


def test_drafts_need_no_more_cells_than_the_completion() -> None:
    for most in range(1, 12):
        batching = Batching(1, exact=True, draft_tokens=8, mumbles=True)
        batching.run(CHAT, max_tokens=most)
        assert batching.context.most_cells <= len(CHAT) + most - 1


def test_tokens_after_a_rejected_draft_are_not_reused() -> None:
    batching = Batching(1, exact=True, draft_tokens=4, mumbles=True)
    for length in range(20, 40):
        first = prompt(3, length)
        longer = first + tuple(batching.run(first, max_tokens=20)) + prompt(4, 40)
        assert batching.run(longer) == solo(longer, exact=True, mumbles=True)


class CostlyRows(SteadyCosts):
    """Every row of a step takes as long as every other."""

    def decode_seconds(self, tokens: int) -> float:
        return 0.01 * tokens


def test_streams_whose_rows_cost_a_step_are_decoded_together_without_drafts() -> None:
    batching = Batching(8, exact=True, draft_tokens=4, mumbles=True, costs=CostlyRows())
    calls = [batching.submit(prompt(kind, 20), max_tokens=20) for kind in range(5)]
    batching.finish()
    assert all(call.tokens() == solo(call.prompt, 20, exact=True, mumbles=True) for call in calls)
    assert max(len(call.slots) for call in batching.context.calls) == 5
    assert all(call.finished[0].statistics.draft_tokens == 0 for call in calls)


def test_the_drafts_of_all_streams_are_verified_in_one_call() -> None:
    batching = Batching(4, exact=True, draft_tokens=4, mumbles=True)
    calls = [batching.submit(prompt(kind, 20), max_tokens=60) for kind in range(4)]
    while not all(call.counts[0] for call in calls):
        batching.step()
    before = len(batching.context.calls)
    batching.step()
    assert len(batching.context.calls) == before + 1
    batching.finish()
    assert all(call.tokens() == solo(call.prompt, 60, exact=True, mumbles=True) for call in calls)
    assert max(call.tokens for call in batching.context.calls if call.kind == "next") > 4


def test_where_batching_changes_results_each_draft_has_a_separate_call() -> None:
    """The context rejects calls that hold other tokens too."""
    batching = Batching(2, draft_tokens=16, mumbles=True)
    calls = [batching.submit(prompt(kind, 20), max_tokens=80) for kind in range(2)]
    batching.finish()
    assert all(call.complete for call in calls)
    runs = [call for call in batching.context.calls if call.kind == "next" and call.tokens > len(call.slots)]
    assert runs
    assert all(len(call.slots) == 1 for call in runs)


# Constraints.


@pytest.fixture
def record() -> Matcher:
    """{"name": "...", "age": ...}"""
    grammar = 'start: "{\\"name\\": \\"" /[a-z]{1,4}/ "\\", \\"age\\": " /[1-9][0-9]/ "}"'
    return Matcher(start_matcher(TOKENIZER, grammar), SIZE, InvalidGrammar)


def test_forced_tokens_change_no_token_and_save_calls(record: Matcher) -> None:
    one_by_one, jumping = Batching(1, exact=True), Batching(1, exact=True)
    for kind in range(8):
        options = {"matcher": record, "max_tokens": 60, "frequency_penalty": 2.0}
        expected = one_by_one.run(prompt(kind, 30), logprobs=0, **options)
        assert jumping.run(prompt(kind, 30), **options) == expected
        assert bytes(expected).startswith(b'{"name": "')
        assert bytes(expected).endswith(b"}")
    assert 2 * len(jumping.context.calls) < len(one_by_one.context.calls)


def test_a_constrained_sequence_gives_the_same_tokens_in_company(record: Matcher) -> None:
    alone = Batching(1).run(CHAT, matcher=record, max_tokens=60)
    batching = Batching(4)
    streaming(batching, 1)
    call = batching.submit(CHAT, matcher=record, max_tokens=60, choices=2)
    batching.finish()
    assert [call.tokens(0), call.tokens(1)] == [alone, alone]


def test_forced_tokens_share_a_call_with_decoding_sequences(record: Matcher) -> None:
    alone = Batching(1, exact=True).run(CHAT, matcher=record, max_tokens=60)
    batching = Batching(2, exact=True)
    stream = batching.submit(endless(0, exact=True), max_tokens=LONG_RUN)
    while not stream.counts[0]:
        batching.step()
    call = batching.submit(CHAT, matcher=record, max_tokens=60)
    batching.finish()
    assert call.tokens() == alone
    assert stream.tokens() == solo(stream.prompt, LONG_RUN, exact=True)
    assert any(call.slots == (0, 1) and call.tokens > 2 for call in batching.context.calls)


def test_more_forced_tokens_than_a_batch_holds_are_computed_in_several_calls() -> None:
    matcher = Matcher(start_matcher(TOKENIZER, f'start: "{"ab" * 50}"'), SIZE, InvalidGrammar)
    for exact in (True, False):
        batching = Batching(2, exact=exact, limits=BatchLimits(32, 32, 2.0))
        stream = batching.submit(endless(0), max_tokens=40)
        assert bytes(batching.run(prompt(1, 20), matcher=matcher.copy(), max_tokens=120)) == b"ab" * 50
        assert stream.complete
        assert max(call.tokens for call in batching.context.calls) <= 32


def test_forced_tokens_respect_max_tokens(record: Matcher) -> None:
    batching = Batching(1)
    call = batching.submit(CHAT, matcher=record, max_tokens=5)
    batching.finish()
    assert bytes(call.tokens()) == b'{"nam'
    assert call.finished[0].reason is StopReason.MAX_PREDICTED_TOKENS_REACHED


# Cancellations.


def test_a_cancelled_sequence_frees_its_slot_within_a_step() -> None:
    batching = Batching(1)
    (stream,) = streaming(batching, 1)
    waiting = batching.submit(CHAT, max_tokens=1)
    stream.cancel()
    batching.step()
    assert waiting.complete
    assert batching.batcher.idle


def test_a_sequence_cancelled_in_prefill_frees_its_slot_within_a_step() -> None:
    batching = Batching(1)
    long = batching.submit(prompt(1, 3600))
    batching.step()
    assert batching.batcher.active == 1
    long.cancel()
    batching.step()
    assert batching.batcher.idle


def test_a_sequence_cancelled_while_waiting_never_starts() -> None:
    batching = Batching(1)
    (stream,) = streaming(batching, 1)
    waiting = batching.submit(CHAT)
    waiting.cancel()
    batching.finish()
    assert agrees(stream)
    assert waiting.counts == [0]


def test_tokens_computed_by_a_cancelled_sequence_are_reused() -> None:
    batching = Batching(1)
    long = batching.submit(prompt(1, 1000))
    batching.step()
    long.cancel()
    again = batching.submit(prompt(1, 1000))
    batching.finish()
    assert agrees(again)
    assert again.finished[0].statistics.cached_tokens > 0


def test_a_call_ends_when_its_last_sequence_is_cancelled() -> None:
    batching = Batching(2, exact=True)
    long, other = batching.submit(prompt(1, 2000)), batching.submit(prompt(2, 2000))

    def leave(computed: Computed) -> None:
        for call in (long, other) if 0 in computed.slots else (other,):
            call.cancel()
            batching.batcher.running_call.review()

    batching.step()
    batching.context.during = leave
    batching.step()
    assert batching.context.interrupted == 1
    batching.step()
    assert batching.batcher.idle
    batching.context.during = lambda computed: None
    again = batching.submit(prompt(1, 2000))
    batching.finish()
    assert again.tokens() == solo(again.prompt, exact=True)
    assert again.finished[0].statistics.cached_tokens > 0, "what was computed before is kept"


def test_a_call_continues_while_one_of_its_sequences_is_not_cancelled() -> None:
    batching = Batching(2, exact=True)
    stays, leaves = batching.submit(prompt(1, 200)), batching.submit(prompt(2, 200))

    def leave(computed: Computed) -> None:
        leaves.cancel()
        batching.batcher.running_call.review()

    batching.context.during = leave
    batching.finish()
    assert batching.context.interrupted == 0
    assert stays.tokens() == solo(stays.prompt, exact=True)


def test_a_late_interruption_does_not_end_the_next_call() -> None:
    batching = Batching(1)
    cancelled = batching.submit(CHAT)
    batching.step()
    cancelled.cancel()
    batching.batcher.running_call.review()
    assert batching.run(OTHER_CHAT) == solo(OTHER_CHAT)


def test_an_unloaded_model_computes_nothing_more() -> None:
    batching = Batching(1)
    call = batching.submit(prompt(1, 2000))
    batching.batcher.running_call.stop()
    batching.step()
    assert batching.context.interrupted == len(batching.context.calls) > 0
    assert not batching.context.cells[0]
    batching.batcher.abandon()
    assert call.counts == [0]


# Failures.


def test_a_failed_decode_ends_the_sequences_of_its_call_and_no_others() -> None:
    batching = Batching(4)
    streams = streaming(batching, 2)
    long = batching.submit(prompt(1, 1000))
    batching.step()
    batching.context.fails = _once(lambda call: call.kind == "next")
    batching.finish()
    assert [type(call.error) for call in streams] == [DecodeFailed] * 2
    assert agrees(long)


def test_a_failed_slice_ends_its_sequence_and_no_other() -> None:
    batching = Batching(4)
    streams = streaming(batching, 2)
    long, short = batching.submit(prompt(1, 1000)), batching.submit(prompt(2, 70))
    batching.context.fails = _once(lambda call: call.kind == "prompt" and call.tokens == 64)
    batching.finish()
    assert isinstance(long.error, DecodeFailed)
    assert all(agrees(call) for call in (*streams, short))


def test_a_failed_choice_ends_the_others_of_its_call() -> None:
    batching = Batching(2)
    call = batching.submit(endless(0), choices=3, max_tokens=LONG_RUN)
    batching.step()
    batching.context.fails = _once(lambda call: call.kind == "next")
    batching.step()
    batching.step()
    assert isinstance(call.error, DecodeFailed)
    assert batching.batcher.idle


def test_tokens_cached_by_a_failed_sequence_are_not_reused() -> None:
    batching = Batching(1)
    failed = batching.submit(CHAT, max_tokens=30)
    batching.context.fails = _once(lambda call: call.kind == "next")
    batching.finish()
    assert failed.error is not None
    again = batching.submit(CHAT)
    batching.finish()
    assert agrees(again)
    assert again.finished[0].statistics.cached_tokens == 0


def test_a_copy_made_before_a_failure_stays_valid() -> None:
    batching = Batching(2)
    first = batching.submit(CHAT, max_tokens=30)
    while not first.counts[0]:
        batching.step()
    second = batching.submit(OTHER_CHAT)
    batching.context.fails = _once(lambda call: call.kind == "next" and len(batching.context.copies) == 1)
    batching.finish()
    third = batching.submit(OTHER_CHAT)
    batching.finish()
    assert first.error is not None
    assert second.error is not None or agrees(second)
    assert agrees(third)


def test_remaining_calls_fail_when_the_model_is_unloaded() -> None:
    batching = Batching(1)
    (stream,) = streaming(batching, 1)
    waiting = batching.submit(CHAT, choices=2)
    for source, event in batching.batcher.abandon():
        batching.calls[source.call].deliver(event)
    assert isinstance(stream.error, Draining)
    assert isinstance(waiting.error, Draining)
    assert batching.batcher.idle


# Fairness and limits.


def test_sequences_are_served_in_order_within_a_key_and_fairly_among_keys() -> None:
    batching = Batching(1)
    (stream,) = streaming(batching, 1)
    submitted = {name: batching.submit(prompt(kind, 20), max_tokens=1, key=name[0]) for kind, name in enumerate(NAMES)}
    stream.cancel()
    order = []
    while not batching.batcher.idle:
        batching.step()
        order += [name for name, call in submitted.items() if call.complete and name not in order]
    assert order == NAMES


NAMES = ["A1", "A2", "A3", "B1", "B2", "C1"]


def test_a_key_with_nothing_running_starts_before_one_that_has() -> None:
    batching = Batching(2)
    for number in range(3):
        batching.submit(endless(number), key="A", max_tokens=LONG_RUN)
    batching.step()
    other = batching.submit(CHAT, key="B", max_tokens=1)
    batching.calls[0].cancel()
    while not other.complete:
        batching.step()
    assert batching.calls[2].counts == [0]


def test_a_unified_cache_never_holds_more_than_its_capacity() -> None:
    """The context checks it at every call."""
    batching = Batching(8, reuse=False, capacity=400)
    calls = [batching.submit(prompt(kind % 3, 30 * kind), choices=1 + kind % 3) for kind in range(1, 12)]
    batching.finish()
    assert all(agrees(call) for call in calls)


def test_streams_get_a_token_every_step_while_a_long_prompt_is_computed() -> None:
    batching = Batching(4, costs=SteadyCosts(token_seconds=0.001, step_seconds=0.1))
    streams = streaming(batching, 3)
    long = batching.submit(prompt(1, 3600), max_tokens=1)
    for before, after in pairwise(_steps(batching, streams, long)):
        running = [a for a, b, call in zip(after.counts, before.counts, streams, strict=True) if a > b or call.complete]
        assert len(running) == len(streams)
        assert after.computed - before.computed <= 203, "two decode steps' worth, and the step itself"
    assert agrees(long)


class Progress:
    def __init__(self, batching: Batching, streams: list[Call]) -> None:
        self.counts = [call.counts[0] for call in streams]
        self.computed = _computed(batching)


def _steps(batching: Batching, streams: list[Call], until: Call) -> Iterator[Progress]:
    yield Progress(batching, streams)
    while not until.complete:
        batching.step()
        yield Progress(batching, streams)


def test_a_prompt_takes_long_steps_while_no_sequence_decodes() -> None:
    """Choices that wait for their prompt do not decode."""
    computed = []
    for choices in (1, 3):
        batching = Batching(4, costs=SteadyCosts(token_seconds=0.001, step_seconds=0.01))
        batching.submit(prompt(1, 3600), choices=choices)
        batching.step()
        computed.append(_computed(batching))
    assert computed == [512, 512]


def test_a_short_prompt_answers_before_a_long_one_that_came_first() -> None:
    batching = Batching(2)
    long, short = batching.submit(prompt(1, 3600)), batching.submit(prompt(2, 20), max_tokens=1)
    batching.step()
    assert short.complete
    assert long.counts == [0]


def test_progress_is_reported_for_every_slice_up_to_the_whole_prompt() -> None:
    batching = Batching(1)
    batching.run(CHAT)
    call = batching.submit(CHAT + prompt(4, 200), progress=True)
    batching.finish()
    done = [progress.done_tokens for progress in call.progress]
    assert done == sorted(set(done))
    assert done[-1] == len(call.prompt)
    assert {progress.cached_tokens for progress in call.progress} == {call.finished[0].statistics.cached_tokens}


# Random actions.

BEGINNINGS = [SYSTEM, prompt(1, 200), prompt(1, 130), prompt(2, 64), ()]
prompts = st.builds(
    lambda beginning, kind, length: beginning + prompt(kind, length),
    st.sampled_from(BEGINNINGS),
    st.integers(5, 7),
    st.sampled_from([1, 15, 40, 100]),
)
submissions = st.tuples(
    st.just("submit"), prompts, st.integers(1, 3), st.sampled_from([1, 3, 9]), st.sampled_from("AB")
)
actions = st.lists(
    st.one_of(
        submissions,
        submissions,
        st.tuples(st.just("step"), st.integers(1, 4)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("fail"), st.sampled_from(["prompt", "next"])),
    ),
    max_size=20,
)


@settings(max_examples=40, deadline=None)
@given(
    actions=actions,
    slots=st.integers(1, 4),
    mode=st.sampled_from(
        ["own caches", "unified", "exact", "guessing", "unified, guessing", "drafting", "unified, drafting"]
    ),
    worth_copying=st.sampled_from([1, 80]),
    cache_ram=st.sampled_from([0, 8_000]),
)
def test_every_finished_sequence_has_its_own_tokens_under_random_actions(
    actions: list[Any], slots: int, mode: str, worth_copying: int, cache_ram: int
) -> None:
    drafting, unified = "drafting" in mode, "unified" in mode
    guessing = drafting or "guessing" in mode
    exact = guessing or mode == "exact"
    sure = FakeContext(slots, rounding=False, mumbles=True, sharpness=1e6, capacity=700 if unified else None)
    batching = Batching(
        slots,
        reuse=not unified,
        capacity=700 if unified else None,
        costs=SteadyCosts(worth_copying=worth_copying),
        exact=exact,
        draft_tokens=3 if guessing else 0,
        drafter=draft_model(sure, read=100, slots=slots, keep=not unified) if drafting else None,
        mumbles=guessing,
        cache_ram=0 if unified else cache_ram,
    )
    injected = _act(batching, actions)
    batching.finish()
    failed = [call for call in batching.calls if call.error is not None]
    assert len(failed) <= injected * slots
    for call in batching.calls:
        assert call.complete or call.error is not None or call.ticket.cancelled
        for choice in call.finished:
            assert call.tokens(choice) == solo(call.prompt, call.max_tokens, choice, 0.0, exact, guessing)
    batching.context.fails = lambda call: False
    assert batching.free_slots() == slots


def _act(batching: Batching, actions: list[Any]) -> int:
    """Performs the actions; returns how many decode calls will fail at most."""
    injected = 0
    for action in actions:
        match action:
            case ("submit", tokens, choices, most, key):
                batching.submit(tokens, choices=choices, max_tokens=most, key=key)
            case ("step", count):
                for _ in range(count):
                    batching.step()
            case ("cancel", number) if number < len(batching.calls):
                batching.calls[number].cancel()
            case ("fail", kind):
                injected += 1
                batching.context.fails = _once(lambda call, kind=kind: call.kind == kind)
    return injected


# A prompt that is echoed, with the log-probabilities of its tokens or without.


def expected_logprobs(echoed: tuple[int, ...], *, exact: bool) -> list[float | None]:
    """The log-probability of each of the prompt's tokens, given those before it."""
    context, found = FakeContext(1, rounding=not exact), [None]
    for start in range(0, len(echoed), SCORED_TOKENS):
        context.decode_runs([Run(0, echoed[start : start + SCORED_TOKENS], start, 0)])
        followers = echoed[start + 1 : start + SCORED_TOKENS + 1]
        found += [token_logprobs(context.logits(at), token, 0)[0] for at, token in enumerate(followers)]
    return found


def echoed_logprobs(call: Call, choice: int = 0) -> list[float | None]:
    return [rating.logprob for each in call.echoed if each.choice == choice for rating in each.logprobs]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("length", [1, 2, SCORED_TOKENS, SCORED_TOKENS + 1, 3 * SCORED_TOKENS + 5])
def test_every_prompt_token_but_the_first_is_scored_whatever_the_cache_holds(length: int, exact: bool) -> None:
    batching = Batching(4, exact=exact, cache_ram=10**6)
    echoed = prompt(1, length)
    batching.run((*echoed, *prompt(2, 40)))
    beside = batching.submit(prompt(3, 300), max_tokens=20)
    calls = [batching.submit(echoed, choices=2, logprobs=1, echo=Echo.FIRST), batching.submit(echoed)]
    batching.finish()
    assert beside.tokens() == solo(beside.prompt, 20, exact=exact)
    for choice in (0, 1):
        assert echoed_logprobs(calls[0], choice) == expected_logprobs(echoed, exact=exact)
        parts = [each for each in calls[0].echoed if each.choice == choice]
        assert "".join(each.text for each in parts) == "".join(f"{token} " for token in echoed)
        assert [rating.id for each in parts for rating in each.logprobs] == list(echoed)
    assert calls[0].finished[0].statistics.cached_tokens == 0
    assert [len(rating.top) for rating in calls[0].echoed[0].logprobs][:2] == [0, 1][:length]
    assert not calls[1].echoed


@pytest.mark.parametrize("exact", [True, False])
def test_no_call_scores_more_tokens_than_its_logits_have_room_for(exact: bool) -> None:
    batching = Batching(4, exact=exact)
    stream = batching.submit(endless(0, exact=exact), max_tokens=LONG_RUN)
    while not stream.counts[0]:
        batching.step()
    batching.context.calls.clear()
    batching.submit(prompt(1, 500), logprobs=0, echo=Echo.ALONE)
    batching.finish()
    lone = [call for call in batching.context.calls if call.tokens > 1]
    assert sum(call.tokens for call in lone) == 500
    assert all(call.tokens <= SCORED_TOKENS and len(call.slots) == 1 for call in lone)


def test_echo_alone_returns_the_prompt_and_generates_nothing() -> None:
    batching = Batching(2)
    batching.run(CHAT)
    plain = batching.submit(CHAT, choices=2, echo=Echo.ALONE)
    batching.finish()
    assert [each.choice for each in plain.echoed] == [0, 1]
    assert {each.text for each in plain.echoed} == {"".join(f"{token} " for token in CHAT)}
    assert plain.counts == [0, 0]
    assert plain.finished[1].reason is StopReason.MAX_PREDICTED_TOKENS_REACHED
    assert plain.finished[0].statistics.cached_tokens == SYSTEM_END
    assert batching.run(CHAT) == solo(CHAT)
    assert batching.free_slots() == 2
