"""The batcher on contexts that cannot be cut at any token: recurrent states, and sliding windows."""

from typing import Any

import pytest
import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.errors import DecodeFailed
from tests.support.worker.batching import BORDER, Batching, Call, SteadyCosts, solo
from tests.unit.worker.batching.test_batcher import _act, actions, prompt
from worker.engine.prompt.checkpoint_places import SPACING

RECURRENT, SLIDING = 1, 24  # tokens that the next one depends on
PLENTY = 10**6  # bytes
BLOCK = 4

SYSTEM = (BORDER, *prompt(1, 90))
QUESTION = (BORDER, *prompt(2, 60))
OTHER_QUESTION = (BORDER, *prompt(3, 60))
HEADER = (BORDER, 7, 8)  # of the answer
CHAT = SYSTEM + QUESTION + HEADER


def cached(call: Call) -> int:
    return call.finished[0].statistics.cached_tokens


def run(batching: Batching, tokens: tuple[int, ...], **options: Any) -> Call:
    """Runs a call and checks that its tokens are those it has when it runs alone."""
    call = batching.submit(tokens, **options)
    batching.finish()
    assert call.tokens() == solo(tokens, call.max_tokens, exact=True)
    return call


def batching(window: int, slots: int = 1, **options: Any) -> Batching:
    return Batching(slots, exact=True, window=window, **options)


def continued(call: Call, more: tuple[int, ...] = OTHER_QUESTION) -> tuple[int, ...]:
    """The conversation's next prompt."""
    return (*call.prompt, *call.tokens(), *more)


kinds = pytest.mark.parametrize("window", [RECURRENT, SLIDING])


@kinds
@pytest.mark.parametrize("length", [5, 6, 7, 8, 9])
def test_a_conversation_continues_from_the_end_of_its_answer(window: int, length: int) -> None:
    one = batching(window)
    call = run(one, CHAT, max_tokens=length)
    computed = len(one.context.cells[0])  # not the answer's last token
    assert cached(run(one, continued(call))) in range(computed - (BLOCK - 1) * (window == SLIDING), computed + 1)
    assert not one.context.resumed


@kinds
def test_another_question_after_an_answer_that_was_repeated_continues_where_the_first_one_did(window: int) -> None:
    one = batching(window)
    call = run(one, CHAT, max_tokens=9)
    first = run(one, continued(call, QUESTION))
    assert cached(first) > len(CHAT)
    assert cached(run(one, continued(call, OTHER_QUESTION))) == cached(first)


@kinds
def test_a_short_answer_in_other_words_and_a_short_question_are_computed_at_once(window: int) -> None:
    one = batching(window)
    run(one, CHAT, max_tokens=9)
    before = len(one.context.calls)
    run(one, (*CHAT, *prompt(4, 30), BORDER, *prompt(5, 30), *HEADER), max_tokens=1)
    assert len(one.context.calls) - before == 2  # up to the header, where later prompts leave it, and from there


@kinds
def test_the_same_prompt_is_computed_again_from_before_its_last_message(window: int) -> None:
    one = batching(window)
    run(one, CHAT, max_tokens=SPACING + 30)
    assert len(CHAT) - SPACING - BLOCK <= cached(run(one, CHAT)) < len(CHAT)


@kinds
def test_another_question_continues_from_the_start_of_the_last_one(window: int) -> None:
    one = batching(window)
    run(one, CHAT)
    assert len(SYSTEM) - BLOCK < cached(run(one, SYSTEM + OTHER_QUESTION + HEADER)) <= len(SYSTEM)


@kinds
def test_an_answer_that_is_repeated_in_other_words_continues_from_its_question(window: int) -> None:
    one = batching(window)
    run(one, CHAT, max_tokens=60)
    answer_start = len(SYSTEM + QUESTION)
    assert answer_start - BLOCK < cached(run(one, CHAT + prompt(6, 20) + OTHER_QUESTION)) <= len(CHAT)


@kinds
def test_a_long_text_without_messages_is_reused_at_growing_distances_from_its_end(window: int) -> None:
    one = batching(window)
    text = prompt(1, 3000)
    run(one, text, max_tokens=60)
    assert cached(run(one, text[:2400] + prompt(5, 30))) >= 1400


@kinds
def test_a_conversation_in_another_slot_continues_from_the_system_prompt(window: int) -> None:
    two = batching(window, 2)
    first = two.submit(CHAT, max_tokens=30)
    for _ in range(20):
        two.step()
    assert first.counts[0], "its prompt is computed"
    second = two.submit(SYSTEM + OTHER_QUESTION + HEADER)
    two.finish()
    assert len(SYSTEM) - BLOCK < cached(second) <= len(SYSTEM)
    for call in (first, second):
        assert call.tokens() == solo(call.prompt, call.max_tokens, exact=True)


@kinds
def test_prompts_that_arrive_together_wait_for_what_they_share(window: int) -> None:
    four = batching(window, 4)
    calls = [four.submit((*SYSTEM, BORDER, *prompt(kind, 60), *HEADER)) for kind in range(2, 6)]
    four.finish()
    assert sorted(cached(call) > len(SYSTEM) - BLOCK for call in calls) == [False, True, True, True]
    assert all(call.tokens() == solo(call.prompt, exact=True) for call in calls)


@kinds
def test_choices_share_their_prompt(window: int) -> None:
    four = batching(window, 4)
    call = four.submit(CHAT, choices=3, temperature=1.0)
    four.finish()
    assert [call.tokens(choice) for choice in range(3)] == [
        solo(CHAT, 8, choice, temperature=1.0, exact=True) for choice in range(3)
    ]
    assert sum(computed.tokens for computed in four.context.calls if computed.kind == "prompt") == len(CHAT)


def test_choices_whose_prompt_cannot_be_copied_compute_it() -> None:
    four = batching(RECURRENT, 4)

    def refuse(source: int, slot: int) -> None:
        four.context.cells[slot] = []
        raise DecodeFailed

    four.context.copy = refuse  # type: ignore[method-assign]
    call = four.submit(CHAT, choices=2)
    four.finish()
    assert [call.tokens(choice) for choice in range(2)] == [solo(CHAT, 8, choice, exact=True) for choice in range(2)]


@kinds
def test_a_checkpoint_that_cannot_be_restored_is_computed_again_and_logged(window: int) -> None:
    one = batching(window)
    run(one, CHAT, max_tokens=60)
    one.context.refuses_states = True
    with structlog.testing.capture_logs() as logs:
        assert cached(run(one, SYSTEM + OTHER_QUESTION + HEADER)) == 0
    assert [entry["event"] for entry in logs] == ["prefix_not_reused"]
    one.context.refuses_states = False
    assert cached(run(one, SYSTEM + OTHER_QUESTION + HEADER)), "the slot is used again"


@kinds
def test_a_checkpoint_that_cannot_be_made_is_missed_and_logged(window: int) -> None:
    one = batching(window)
    one.context.refuses_checkpoints = True
    with structlog.testing.capture_logs() as logs:
        call = run(one, CHAT, max_tokens=60)
    assert {entry["event"] for entry in logs} == {"checkpoint_not_made"}
    assert cached(run(one, SYSTEM + OTHER_QUESTION + HEADER)) == 0
    assert cached(run(one, continued(call))) == 0, "it was the other question's slot"


@kinds
def test_without_checkpoints_the_end_of_an_answer_is_reused(window: int) -> None:
    one = batching(window, checkpoints=0)
    call = run(one, CHAT)
    assert cached(run(one, continued(call))) >= len(CHAT)
    assert one.context.checkpoints == 0


@kinds
def test_all_slots_together_have_no_more_checkpoints_than_allowed(window: int) -> None:
    three = batching(window, 3, checkpoints=2)
    for kind in range(12):
        run(three, (*SYSTEM, BORDER, *prompt(kind, 70), *HEADER))
        assert three.checkpoints is not None
        assert 0 < len(three.checkpoints) <= 6


@kinds
def test_evicted_conversations_are_restored_where_they_were_asked(window: int) -> None:
    one = batching(window, cache_ram=PLENTY)
    chats = [(BORDER, *prompt(kind, 100), *HEADER) for kind in range(4)]
    calls = [run(one, chat) for chat in chats]
    assert [cached(run(one, chat)) >= 100 - BLOCK for chat in chats] == [True] * 4
    assert [cached(run(one, continued(call))) >= 100 - BLOCK for call in calls] == [True] * 4


@kinds
def test_a_saved_state_serves_no_prompt_that_leaves_it_earlier(window: int) -> None:
    one = batching(window, cache_ram=PLENTY)
    run(one, CHAT)
    run(one, prompt(9, 300), max_tokens=30)
    assert cached(run(one, SYSTEM + OTHER_QUESTION)) == 0


@settings(max_examples=60, deadline=None)
@given(
    actions=actions,
    slots=st.integers(1, 4),
    window=st.sampled_from([RECURRENT, 3, SLIDING]),
    exact=st.booleans(),
    worth_copying=st.sampled_from([1, 80]),
    cache_ram=st.sampled_from([0, 8_000]),
    checkpoints=st.sampled_from([0, 1, 4]),
)
def test_every_finished_sequence_has_its_own_tokens_under_random_actions(
    actions: list[Any], slots: int, window: int, exact: bool, worth_copying: int, cache_ram: int, checkpoints: int
) -> None:
    several = Batching(
        slots,
        exact=exact,
        window=window,
        costs=SteadyCosts(worth_copying=worth_copying),
        cache_ram=cache_ram,
        checkpoints=checkpoints,
    )
    injected = _act(several, actions)
    several.finish()
    failed = [call for call in several.calls if call.error is not None]
    assert len(failed) <= injected * slots
    for call in several.calls:
        assert call.complete or call.error is not None or call.ticket.cancelled
        for choice in call.finished:
            assert call.tokens(choice) == solo(call.prompt, call.max_tokens, choice, exact=exact)
    several.context.fails = lambda call: False
    assert several.free_slots() == slots
